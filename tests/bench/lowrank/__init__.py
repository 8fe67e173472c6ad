"""Low rank measured: accuracy, speed and cost, beside plain and diagonally scaled SVD."""
