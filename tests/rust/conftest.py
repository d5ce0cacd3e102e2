"""Says how many Rust tests stand behind the tests of this directory."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    lines = [text for report in reports for key, text in report.user_properties if key == "rust"]
    if lines:
        terminalreporter.section("Rust tests by crate")
        for line in lines:
            terminalreporter.line(line)
