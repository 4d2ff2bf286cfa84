"""One thread for torch, here and in processes that tests start: networks are so small that a second one only waits."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
