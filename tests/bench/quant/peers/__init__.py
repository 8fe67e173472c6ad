"""One runner for each other quantizer; each imports nothing of the program.

python -m tests.bench.quant.peers.with_X VARIANT MODEL CALIB OUT [--transformer]
"""
