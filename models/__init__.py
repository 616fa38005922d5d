"""The shipped model: story grammar, tokenizer, training and evaluation. Only `train.py` needs torch."""
