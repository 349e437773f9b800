"""Fuzzers: what comes from outside, thrown at the package with every byte wrong that can be.

A module a subject: `target` takes bytes, and raises only where the contract is broken; `seeds` yields bytes to begin
with; `INSTRUMENTED` names the modules whose branches a coverage-guided run counts.  The contract is the same for all:
either a right result or one sentence, in an exception that is told; never a crash, a hang or anything else.

    cd tests && python -m fuzz sidecar --executions 1000000 --seconds 600
"""
