"""Federated gradient descent for linear and logistic models.

`algorithm` is what a spec's `algorithm: linear` finds, `training.fit` what it runs: `moments` agrees on coordinates
(`design`), `problem` evaluates loss and gradient by one sum, `gradient_descent` and `newton` walk to the minimum,
`model_file` and `sklearn_model` write what is served.
"""
