"""What the commands that work on a job do; the command line only calls them."""
