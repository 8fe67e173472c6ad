"""What is known of the numbers: ranges and distributions, seen on samples or stated."""
