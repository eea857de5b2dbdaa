"""Networks that both front ends are tested on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (17, 15)


class Everything(nn.Module):
    """Most families of operators in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.group, self.layer, self.batch = nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.BatchNorm2d(8)
        self.instance, self.pixel = nn.InstanceNorm2d(8, affine=True), nn.Linear(8, 8)
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(F.pad(x, (1, 1, 1, 1)))
        x = self.instance(F.gelu(self.group(x)))
        y = self.pixel(self.layer(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = self.batch(F.relu6(x + y, inplace=True))
        x = x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        spatial = torch.cat([x.mean(1, keepdim=True), torch.max(x, 1, keepdim=True)[0]], 1)
        x = x * torch.softmax(spatial, 1).sum(1, keepdim=True)
        x = torch.cat([x, F.leaky_relu(x, -0.5)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
        x = x * torch.sigmoid(rows) * torch.sigmoid(columns)
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = F.avg_pool2d(x, 2, 1, 1, count_include_pad=False)
        x = torch.log(1e-3 + x.abs()) / (1 + torch.exp(x))
        x = F.adaptive_avg_pool2d(x, (7, 3))
        return self.head(x.flatten(2).mean(2))
