"""`sphinx-nvs doctor`: what is installed, what is missing, and the command that fixes it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from sphinx_nvs import __version__
from sphinx_nvs.cli.diagnosis import Finding, diagnose, pair_works
from sphinx_nvs.cli.models import say_table
from sphinx_nvs.cli.options.doctor_options import Doctor
from sphinx_nvs.errors import SphinxError


def doctor(options: Doctor) -> None:
    """Prints every finding, and for each thing missing the command that fixes it.

    Raises:
        SphinxError: the default pair does not work.
    """
    findings = diagnose()
    works = pair_works(findings)
    if options.json:
        report = {"version": __version__, "works": works, "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(f"{json.dumps(report)}\n")
    else:
        _print(findings)
    if not works:
        first = next(finding for finding in findings if finding.state == "broken")
        raise SphinxError(f"the default pair does not work: {first.name}: {first.found}; fix it: {first.fix}")


def _print(findings: list[Finding]) -> None:
    """A table of the findings, then the commands in full: a table would wrap them."""
    say_table(("", "", "state", "found"), [(each.group, each.name, each.state, each.found) for each in findings])
    fixes = [finding for finding in findings if finding.fix is not None]
    if fixes:
        sys.stdout.write("\nTo fix:\n")
    for finding in fixes:
        sys.stdout.write(f"  {finding.name} ({finding.state})\n    {finding.fix}\n")
