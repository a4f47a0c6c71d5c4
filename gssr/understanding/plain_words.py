"""Plain words in the place of rare ones: "anything but", "beneath" and "cap at" are read as "not", "below" and "limit
to".

So small a model as nano knows few words for bounds, for negation and for changes. English has many, and means few
things by them. Here each becomes the word that the head's sentences have; numbers, times and names stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from gssr import yaml_files
from gssr.understanding.mentions import WORDS
from gssr.understanding.sentence import inflected

_NUMBER = rf"(?:{WORDS['number']}|{WORDS['range']})\b"
_SIZE = rf"(?:(?:an?|the|some)\s+)?{_NUMBER}"  # what a bound stands before
_UNIT = rf"(?:[\s-]+(?:of\s+)?(?:{WORDS['unit']}|{WORDS['name']})\b)?"
_SAID = rf"{_NUMBER}{_UNIT}"  # what a bound stands behind
_AREA = "region|range|zone|area|territory|band|domain|realm|corridor"
_SHOWS = "instrument|gauge|meter|display|dial|needle|readout|sensor|screen|monitor|counter|scale"
_PEOPLE = "anyone|anybody|everyone|everybody|we|I|they|one|people|us"
_EXCEED = {
    "exceed": "surpass|top|beat|crack|clear|breach|smash|shatter|eclipse|outdo|transcend|overtake|cross|break",
    "exceeds": "surpasses|tops|beats|cracks|clears|breaches|smashes|shatters|eclipses|overtakes|crosses|breaks",
    "exceeding": "surpassing|topping|beating|cracking|clearing|breaching|smashing|overtaking|crossing|breaking",
    "exceeded": "surpassed|topped|beaten|cracked|cleared|breached|smashed|shattered|overtaken|crossed|broken",
}
# What is not wanted, before a verb in -ing, or before a size.
_SHUN = (
    r"avoid|shun|dodge|evade|eschew|forgo|escape|refrain from|abstain from|beware of|do without|rule out|exclude|"
    r"forbid|(?:steer|stay|keep|stand|remain) (?:well )?(?:clear|away) (?:of|from)|spare (?:us|me|them)|"
    r"save (?:us|me) from"
)
# What is found, and what stands in the place of its groups.
_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    # Negation.
    (rf"\b({_SHUN})\s+(?={_SIZE})", ("do not reach",)),
    (r"\b(anything (?:but|except|save))\b", ("not",)),
    (
        r"\b((?:I|we|they|one)(?: would|'d)? (?:hate|loathe|dread|detest|abhor|resent)(?: (?:to (?:see|have|meet|get)|"
        r"seeing|having|getting))?)\b",
        ("we do not want",),
    ),
    (
        r"\b((?:nobody|no one|none of us)(?: would)? (?:wants?|needs?|wish(?:es)?|likes?|asks?)(?: for)?"
        r"(?: to (?:see|have|meet|get))?)\b",
        ("we do not want",),
    ),
    (rf"\b(the last thing (?:that )?(?:{_PEOPLE}) (?:need|want|wish)(?:s|es)?(?: for)? is)\b", ("we do not want",)),
    (r"\b((?:refuse|decline|fail|omit|forget|cease) to)\s", ("do not",)),
    (r"\b(it (?:is|be) (?:false|untrue|wrong|not so|a lie) that)\b", ("it is not true that",)),
    (r"\b(nowhere(?! near)|at no (?:moment|stage|hour|step)|in no way|on no account|never once|not ever|never ever)\b",
     ("never",)),
    (r"\b(by no means|in no event|no way)\b", ("do not",)),
    (rf"\b(not (?:a|one)(?: single)?)\s+(?=(?:{WORDS['unit']}|{WORDS['name']})\s+(?:above|over|beyond|past|more))",
     ("never",)),
    (r"\b(prevent|block|bar|preclude|deter)\s(?=.{1,40}\bfrom \w+ing\b)", ("keep",)),
    (rf"\b(out of (?:the |any )?(?:(?:{_AREA}) )?(?:below|under|beneath))\s+(?={_SIZE})", ("at at least",)),
    (rf"\b(out of (?:the |any )?(?:(?:{_AREA}) )?(?:above|over|beyond))\s+(?={_SIZE})", ("at at most",)),
    # What is exact, what shows it, what is asked for politely, and asides.
    (r"\b((?:could|would|can|will) it (?:(?:please|kindly|possibly|perhaps) )?)(?!be that)(?=\w)", ("it should ",)),
    (r"\b((?:is|are) going to)\b", ("will",)),
    (r"\b((?:if|should|when) (?:all|everything|things) (?:goes|go) (?:well|right|to plan),?)", ("",)),
    (r"\b((?:see to it|take care|make sure|be sure|ensure) that)\b", ("",)),
    (rf"\b((?:nothing|none|nowhere) (?:but|except|other than|save))\s+(?={_SIZE})", ("exactly",)),
    (rf"\b((?:the|a|an|any|our) (?:{_SHOWS}) (?:reads|shows|says|displays|indicates|registers))\s+(?={_SIZE})",
     ("it is at",)),
    (r"\b(?:whatever|no matter what) (?:happens|comes|may come|it takes)( (?:before|until then|till then|in between|"
     r"on the way|meanwhile))\b", ("",)),
    # Bounds.
    (rf"\b(no(?:t any|thing)? (?:weaker|slower|smaller|fewer|lighter|shallower|gentler|poorer) than)\s+(?={_SIZE})",
     ("no less than",)),
    (rf"\b(no(?:t any|thing)? (?:stronger|faster|bigger|larger|greater|heavier|fiercer|richer) than)\s+(?={_SIZE})",
     ("no more than",)),
    (rf"\b(not any (?:higher|more) than|nothing (?:above|over|beyond|past|higher than|more than))\s+(?={_SIZE})",
     ("no more than",)),
    (rf"\b(not any (?:lower|less) than|nothing (?:below|under|beneath|lower than|less than|short of))\s+(?={_SIZE})",
     ("no less than",)),
    (rf"\b((?:anything |something )?(?:beyond|north of|upwards? of|in excess of|bigger than))\s+(?={_SIZE})",
     ("above",)),
    (rf"\b((?:anything |something )?(?:beneath|underneath|south of|short of|shy of|smaller than))\s+(?={_SIZE})",
     ("below",)),
    (rf"\b(past)\s+(?={_SIZE})", ("above",)),
    *((rf"\b({words})\s+(?={_SIZE})", (plain,)) for plain, words in _EXCEED.items()),
    (rf"{_NUMBER}.*\b(?:be|been|is|get|gets|not|never) ({_EXCEED['exceeded']})\b", ("exceeded",)),
    (rf"{_SAID}\s+((?:or|and) (?:upwards?|up|better|beyond|greater|bigger|faster|further))\b(?! to)", ("or more",)),
    (rf"{_SAID}\s+((?:or|and) (?:downwards?|down|worse|smaller|slower))\b(?! to)", ("or less",)),
    (rf"\b(from)\s+{_SAID}\s+(up|upwards?|on up)\b(?! to)", ("", "or more")),
    (rf"\b(from)\s+{_SAID}\s+(down|downwards?|on down)\b(?! to)", ("", "or less")),
    (rf"\b((?:a|an|the|its) (?:ceiling|cap|lid|upper (?:limit|bound|end|edge)) (?:of|at|is))\s+(?={_SIZE})",
     ("a maximum of",)),
    (rf"\b((?:a|an|the|its) (?:floor|lower (?:limit|bound|end|edge)) (?:of|at|is))\s+(?={_SIZE})", ("a minimum of",)),
    (rf"\b(cap|clamp|curb|contain|restrain)\b.{{1,40}}?\b(at)\s+(?={_SIZE})", ("limit", "to")),
    (rf"\b(draw the line at|stop short at|leave it at)\s+(?={_SIZE})", ("at most",)),
    (rf"{_SAID}\s+((?:as|is|for) (?:a|the) (?:\w+ )?minimum)\b", ("at least",)),
    (rf"{_SAID}\s+((?:as|is|for) (?:a|the) (?:\w+ )?maximum)\b", ("at most",)),
    (rf"{_SAID},? (no less)\b(?! than)", ("at least",)),
    (rf"{_SAID},? (no more)\b(?! than)", ("at most",)),
    # Changes.
    (rf"\b((?:tack|pile|pack|load|heap|lay) (?:on|in)|regain|recoup|win back|claw back|get back)\s+(?={_SIZE})",
     ("gain",)),
    (rf"\b(regained|recouped|won back|clawed back|got back)\s+(?={_SIZE})", ("gained",)),
    (rf"\b(shed|bleed(?: away| off)?|jettison|throw off|give (?:back|away)|hand back)\s+(?={_SIZE})", ("lose",)),
    (rf"\b(shave|knock|chop|lop|whittle|trim|slice|peel|scrape)\s+{_SAID}\s+((?:off|away)(?: what it has)?)\b"
     rf"(?! (?:the|its|{WORDS['name']}))", ("lose", "")),
    (rf"{_SAID}\s+(on top of)\b", ("more than",)),
    (rf"{_SAID}\s+(on top)\b(?! of)", ("more",)),
    (rf"\b(boost|leap|hike|spurt|upswing|boom|burst)\s+(?=of\b.{{0,30}}{_NUMBER})", ("rise",)),
    (rf"\b(slip|setback|downtick|plunge|tumble|shrinkage)\s+(?=of\b.{{0,30}}{_NUMBER})", ("fall",)),
    (rf"{_NUMBER}.{{0,40}}\bbe (gone|shed|given up|missing|lost)\b", ("taken away",)),
    # Times.
    (rf"{WORDS['length']} (hence|out|off|down the (?:road|line|track)|further on|on)(?=\s*(?:[.,;:?!]|$|it\b))",
     ("from now",)),
    (r"(,? (?:give or take|or so|or thereabouts))\b", ("",)),
)  # fmt: skip


@cache
def _gerunds() -> dict[str, str]:
    """Verbs in -ing of the head's sentences, with their plain form."""
    verbs = [verb for name in ("up", "down", "reach", "stay", "beyond", "under") for verb in _words()[name]]
    return {inflected(verb, "ing").split(" ")[0]: verb.split(" ")[0] for verb in verbs}


@cache
def _words() -> dict[str, list[str]]:
    return yaml_files.load((Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8"))["words"]


@cache
def _compiled() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), plain) for pattern, plain in _RULES)


def plain_words(text: str, places: Sequence[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """A masked sentence (`gssr.understanding.mentions.masked`) in plain words, and where its mentions stand then."""
    found = list(places)
    shun = re.compile(rf"\b({_SHUN})\s+(\w+ing)\b", re.IGNORECASE)
    for match in reversed(list(shun.finditer(text))):
        if (verb := _gerunds().get(match[2].lower())) is not None:
            text, found = _replaced(text, found, match.start(1), match.end(2), f"do not {verb}")
    for pattern, plain in _compiled():
        for start, end, word in reversed(list(_spans(pattern, plain, text))):
            text, found = _replaced(text, found, start, end, word)
    return text, found


def _spans(pattern: re.Pattern[str], plain: tuple[str, ...], text: str) -> Iterator[tuple[int, int, str]]:
    for match in pattern.finditer(text):
        for group, word in enumerate(plain, 1):
            yield *match.span(group), word


def _replaced(
    text: str, places: list[tuple[int, int]], start: int, end: int, word: str
) -> tuple[str, list[tuple[int, int]]]:
    """With a word in the place of a stretch; unchanged where the stretch holds part of a mention."""
    if any(start < last and end > first for first, last in places):
        return text, places
    if not word:  # nor the blank beside it
        start, end = (start - 1, end) if text[:start].endswith(" ") else (start, end + text[end:].startswith(" "))
    if start == 0 and text[0].isupper():
        word = word[:1].upper() + word[1:]
    more = len(word) - (end - start)
    moved = [(first + more, last + more) if first >= end else (first, last) for first, last in places]
    return text[:start] + word + text[end:], moved
