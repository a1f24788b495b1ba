"""Background runs: what is asked for, who moves it on, and what became of it. The ledger is the truth of it all."""
