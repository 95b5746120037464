"""Streaming Conformers of random weights, as WeNet would leave them, converted in no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from harkd_convert.conformer import Conformer
from harkd_convert.conformer_shape import ConformerShape, encoded_frames
from harkd_convert.conformer_source import ConformerSource, open_conformer

TOKENS = ["<blank>", "<unk>", *(f"▁w{i}" for i in range(20)), *"abcdefghijklmnop", "<sos/eos>"]
SHAPES = {
    norm: ConformerShape(80, 48, 3, 80, 3, 8, len(TOKENS), norm)
    for norm in ("layer_norm", "batch_norm")
}
"""By the norm inside the convolution module."""
CONFIG: dict[str, Any] = {
    "encoder": "conformer",
    "encoder_conf": {
        "output_size": 48,
        "attention_heads": 3,
        "linear_units": 80,
        "num_blocks": 3,
        "cnn_module_kernel": 8,
        "causal": True,
        "use_dynamic_chunk": True,
        "input_layer": "conv2d",
        "pos_enc_layer_type": "rel_pos",
        "selfattention_layer_type": "rel_selfattn",
        "activation_type": "swish",
        "normalize_before": True,
    },
    "input_dim": 80,
    "output_dim": len(TOKENS),
}


def random_conformer(shape: ConformerShape, seed: int = 3) -> Conformer:
    """A network in which everything matters, and whose best token changes from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    model = Conformer(shape).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            if name.endswith(("running_var", "istd")):
                value.uniform_(0.2, 0.6, generator=generator)
            elif value.ndim == 1 or "pos_bias" in name:
                value.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
            else:
                fan_in = value[0].numel()
                value.normal_(0.0, 1.5 / fan_in**0.5, generator=generator)
        model.encoder.global_cmvn.mean.normal_(10.0, 1.0, generator=generator)
        # What all frames have in common would drown the rest.
        features = torch.normal(10.0, 3.0, (1, 400, shape.bins), generator=generator)
        frames = encoded_frames(features.shape[1])
        x, _ = model.encoder(features, torch.ones(1, frames, frames, dtype=torch.bool), 0, None)
        model.ctc.ctc_lo.weight /= x.std(dim=1).mean() / 2
        model.ctc.ctc_lo.bias.copy_(-(model.ctc.ctc_lo.weight @ x.mean(dim=1)[0]))
    return model


def write_checkpoint(
    folder: Path, norm: str = "layer_norm", more: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write `final.pt`, `train.yaml` and `units.txt` into a new directory; return it."""
    folder.mkdir(parents=True)
    state = random_conformer(SHAPES[norm]).state_dict()
    torch.save(dict(state) | (more or {}), folder / "final.pt")
    lines = [f"{token} {number}\n" for number, token in enumerate(TOKENS)]
    (folder / "units.txt").write_text("".join(lines), encoding="utf-8")
    encoder = CONFIG["encoder_conf"] | {"cnn_module_norm": norm}
    text = yaml.safe_dump(CONFIG | {"encoder_conf": encoder})
    (folder / "train.yaml").write_text(text, encoding="utf-8")
    return folder


def open_checkpoint(folder: Path) -> ConformerSource:
    """Open what `write_checkpoint` wrote."""
    return open_conformer(folder / "final.pt", folder / "train.yaml", folder / "units.txt")
