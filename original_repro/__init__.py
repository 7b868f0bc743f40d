"""The models, data and training of *Neural Ordinary Differential Equations* (Chen, Rubanova, Bettencourt, Duvenaud, 2018),
each a plain function of its parameters, built on `solvers_bridge`. Importing this package loads none of them: import the
room that is wanted, such as `original_repro.training` or `original_repro.datasets.mnist`.
"""
