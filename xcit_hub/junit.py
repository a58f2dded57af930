"""What was compared as a JUnit report, which GitHub, GitLab, Jenkins and others show beside a change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        of: the network, or both networks.
        what: the output, or the kind of thing that was held against the other's.
        failure: in what it differs; empty where it does not.
        error: why nothing could be compared; empty where something could.
        skipped: why this was not compared; empty where it was.
    """

    of: str
    what: str
    failure: str = ""
    error: str = ""
    skipped: str = ""


def text(suite: str, cases: Sequence[Case], notes: Sequence[str] = ()) -> str:
    """Return the report as XML. Characters that XML does not have are written as Python writes them.

    Args:
        notes: what has to be known beside the cases; they stand in ``system-out``.
    """
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(bool(case.failure) for case in cases)),
        "errors": str(sum(bool(case.error) for case in cases)),
        "skipped": str(sum(bool(case.skipped) for case in cases)),
    }
    top = ElementTree.Element("testsuites", counts)
    suites = ElementTree.SubElement(top, "testsuite", {"name": _shown(suite), **counts})
    for case in cases:
        element = ElementTree.SubElement(suites, "testcase", classname=_shown(case.of), name=_shown(case.what))
        for kind, said in (("failure", case.failure), ("error", case.error), ("skipped", case.skipped)):
            if said:
                ElementTree.SubElement(element, kind, message=_shown(said.splitlines()[0])).text = _shown(said)
    if notes:
        ElementTree.SubElement(suites, "system-out").text = _shown("\n".join(notes))
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def _shown(words: str) -> str:
    return _NOT_IN_XML.sub(lambda found: repr(found[0])[1:-1], words)
