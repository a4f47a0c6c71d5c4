"""What the command line names before its options are parsed."""

from gssr.runs.options import choose


def test_what_decides_about_the_run_is_removed_from_the_command_line() -> None:
    chosen, rest = choose(
        ["fit", "--ckpt_path=last", "--data.goal", "--not an option", "--run", "mine", "-c", "a.yaml"]
    )
    assert (chosen.stage, chosen.ckpt_path, chosen.run) == ("fit", "last", "mine")
    assert rest == ["fit", "--data.goal", "--not an option", "-c", "a.yaml"]
    chosen, rest = choose(["test", "--run", "mine", "--trainer.devices", "1"])
    assert (chosen.ckpt_path, chosen.asks) == ("best", False)
    assert choose(["fit", "--run", "new"])[0].ckpt_path is None
    assert choose(["fit", "--ckpt_path", "null"])[0].ckpt_path is None
    assert choose(["fit", "--model.help", "gssr.network.GoalNetwork"])[0].asks
