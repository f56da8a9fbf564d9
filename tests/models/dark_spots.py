"""Images of dark discs on a pale ground, and a minute's training on them: the least that a detector must learn."""

import numpy as np
import torch

MEAN, STD = (200.0, 200.0, 200.0), (50.0, 50.0, 50.0)
RADIUS_PX = 8


def dark_spots(n, height, width, spots, rng):
    """uint8 (n, 3, height, width), and the discs' centres (n, spots, 2), px, at least 45 px apart."""
    images = rng.normal(200, 8, (n, height, width, 3))
    centres = np.empty((n, spots, 2))
    y, x = np.mgrid[:height, :width]
    for image, of_image in zip(images, centres, strict=True):
        for i in range(spots):
            while True:
                of_image[i] = rng.uniform(10, (width - 11, height - 11))
                if i == 0 or np.hypot(*(of_image[:i] - of_image[i]).T).min() >= 45:
                    break
            image[np.hypot(x - of_image[i, 0], y - of_image[i, 1]) < RADIUS_PX] = 60, 30, 90
    images = torch.from_numpy(images.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(centres.astype(np.float32))


def trained(network, steps, size_px=96, learning_rate=3e-3, seed=0):
    """The losses of a training; the network is changed in place."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, steps)
    losses = []
    network.train()
    for _ in range(steps):
        images, centres = dark_spots(4, size_px, size_px, 2, rng)
        loss = network.loss((images.float() - MEAN[0]) / STD[0], centres)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
        losses.append(loss.item())
    network.eval()
    return losses
