"""Honest statistics of lanes and runs: what a Sharpe ratio is worth after many tries, and how it is found out.

`sharpe` probabilistic and deflated Sharpe, lengths; `bootstrap` stationary resampling and intervals; `spa` reality
check and superior predictive ability; `pbo` overfitting by CSCV; `chances` Monte-Carlo on trades; `splits` folds by
time; `validate` chooses on the one part and measures on the other; `verdict` says it in a sentence.

Numpy only, and pure functions: whoever wants chance passes a seed.
"""
