"""Every scenario that a rollout may meet, on real hosts, and what holds at the end of each."""
