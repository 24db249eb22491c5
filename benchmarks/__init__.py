"""What batchscore costs, measured; each module says how to run it and what it printed."""
