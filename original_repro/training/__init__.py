"""Training: optimisers, learning-rate schedules, batches, checkpoints, and the loop that every experiment runs.

Parameters are nested dicts, lists and tuples of floating-point NumPy arrays. Nothing here knows a model, a data set or a
differential equation, and nothing mutates what it is given. `training.compiled`, which needs TensorFlow, is imported by itself.
"""

from ..atomic_writes import write_atomically
from .batches import Batches, drawn_batches, index_batches, minibatches, random_crops
from .checkpoints import CHECKPOINT_FORMAT, CheckpointError, load_checkpoint, save_checkpoint, sessions_of
from .loop import fit, fit_in_chunks
from .optimisers import Optimiser, adam, clip_norm, rmsprop, sgd
from .schedules import constant, one_cycle, piecewise, warmup_cosine
from .trees import tree_leaves, tree_map
from .weights import check_weights, load_weights, save_weights

__all__ = [
    "Batches",
    "minibatches",
    "index_batches",
    "drawn_batches",
    "random_crops",
    "CHECKPOINT_FORMAT",
    "CheckpointError",
    "save_checkpoint",
    "load_checkpoint",
    "sessions_of",
    "save_weights",
    "load_weights",
    "check_weights",
    "write_atomically",
    "fit",
    "fit_in_chunks",
    "Optimiser",
    "sgd",
    "adam",
    "rmsprop",
    "clip_norm",
    "constant",
    "piecewise",
    "warmup_cosine",
    "one_cycle",
    "tree_map",
    "tree_leaves",
]
