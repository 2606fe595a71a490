"""What a grid costs in memory, time and disk: one formula for each, and what reads them."""
