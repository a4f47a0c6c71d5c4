"""What accompanies a Trainer: guards, schedules and pictures, and what a run needs to be stopped and resumed."""

from callbacks.atomic_io import AtomicCheckpointIO
from callbacks.board_log import BoardLog
from callbacks.checkpoints import Interrupted, RunCheckpoints
from callbacks.csv_log import CsvLog
from callbacks.free_nats import FreeNatsAnnealing
from callbacks.frozen_backbone import FrozenBackboneGuard
from callbacks.gradient_norms import GradientError, GradientNormCheck
from callbacks.plan_rollouts import PlanRollouts
from callbacks.progress import LossBar
from callbacks.results import PredictionWriter, TestReport
from callbacks.resume import ConfigOfResumedRun, HonourOptimizerOptions, ResumePosition, TrainingRandomness
from callbacks.scalar_layout import ScalarLayout
from callbacks.weight_average import WeightAverage

__all__ = [
    "AtomicCheckpointIO",
    "ConfigOfResumedRun",
    "BoardLog",
    "CsvLog",
    "FreeNatsAnnealing",
    "FrozenBackboneGuard",
    "GradientError",
    "GradientNormCheck",
    "HonourOptimizerOptions",
    "Interrupted",
    "LossBar",
    "PlanRollouts",
    "PredictionWriter",
    "ResumePosition",
    "RunCheckpoints",
    "ScalarLayout",
    "TestReport",
    "TrainingRandomness",
    "WeightAverage",
]
