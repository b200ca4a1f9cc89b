"""What tests of several suites and tools share: hosts, not assertions. No test lives here."""
