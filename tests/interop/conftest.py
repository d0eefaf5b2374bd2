"""Prints the figures of these tests at the end of the run."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    told = [(report.nodeid.partition("::")[2], report.user_properties) for report in reports if report.user_properties]
    if told:
        terminalreporter.section("llama.cpp against refusalkit")
    for name, figures in told:
        terminalreporter.line(f"{name}: " + ", ".join(f"{what} {value}" for what, value in figures))
