"""Commands that load torch, found by the command line through entry points; torch is imported when they run."""
