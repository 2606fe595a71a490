"""What only the workflow needs: the grid and its checks, stage entries, staleness, and how a job is started."""
