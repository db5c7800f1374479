"""The joint space: both modalities projected so that a sound and the picture it belongs to lie close together.

Encoders stay as they are; two small heads are trained on their embeddings with a contrastive loss. A batch holds one
second of each of many groups, so all negatives come from other groups.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.config import JointConfig
from training.losses import contrastive_loss
from visxp_search.encoders import JointHead

FloatArray = npt.NDArray[np.float32]


def train_joint(
    visual: FloatArray,
    audio: FloatArray,
    groups: npt.NDArray[np.str_],
    config: JointConfig,
    *,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> tuple[JointHead, JointHead]:
    """Train both projections on embeddings of the same seconds.

    Args:
        visual: (P, D) embeddings of pictures.
        audio: (P, D) embeddings of the sounds of the same seconds.
        groups: (P,) group of each pair.
        config: the settings.
        seed: of weights and batches.
        progress: called with (what, epochs done, epochs in all).

    Returns:
        The heads of the visual and of the audio embedding, in evaluation mode.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    heads = nn.ModuleList([JointHead(visual.shape[1], config.dimensions), JointHead(audio.shape[1], config.dimensions)])
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    batch_size = min(config.batch_size, len(members))
    steps_per_epoch = max(1, len(visual) // batch_size)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, total_steps=config.epochs * steps_per_epoch
    )
    heads.train()
    for epoch in range(config.epochs):
        for _ in range(steps_per_epoch):
            chosen = random.choice(len(members), batch_size, replace=False)
            rows = np.array([random.choice(members[group]) for group in chosen])
            pictures = nn.functional.dropout(torch.from_numpy(visual[rows]), 0.2)
            sounds = nn.functional.dropout(torch.from_numpy(audio[rows]), 0.2)
            loss = contrastive_loss(heads[0](pictures), heads[1](sounds), temperature=config.temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        progress("joint", epoch + 1, config.epochs)
    heads.eval()
    first, second = heads
    if not (isinstance(first, JointHead) and isinstance(second, JointHead)):
        raise AssertionError("heads changed their type")
    return first, second
