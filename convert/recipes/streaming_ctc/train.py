"""Trains a small streaming Conformer with a CTC head, on one CPU core.

In: `train.tsv` and `noise.tsv` (see README.md). Out: a directory as WeNet leaves it (`final.pt`,
`train.yaml`, `units.txt`), which `harkd-convert streaming` takes. Runs on the main thread.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from harkd_convert.conformer import Conformer
from harkd_convert.conformer_shape import Chunking, ConformerShape
from harkd_convert.mel_features import mel_features
from recipes.streaming_ctc.corpus import SHORT_EPOCHS, Corpus
from recipes.streaming_ctc.objective import loss_of, word_error_rate
from recipes.streaming_ctc.speech import Ears, Recording, batches
from recipes.streaming_ctc.units import learn_units

log = logging.getLogger("train")
CHUNKINGS = (Chunking(16, 4), Chunking(8, 8), Chunking(8, 4), Chunking(4, 16), Chunking(24, 4))
"""Half of the batches have the first, the others any; so one model serves several delays."""
PEAK_RATE, WARM_STEPS, WEIGHT_DECAY = 1e-3, 100, 1e-2
BATCH_S = 20.0
AVERAGED = 0.998
"""Of the averaged weights stays at a step; they are what is evaluated and kept."""
LEAST_PAIRS = 30
DROPOUT = 0.1
BLANK_AT_FIRST = 3.0
"""The bias of the blank: most frames say nothing, which would take the first 50 steps to learn."""
SEED = 1


def prepare(model: Conformer, recordings: Sequence[Recording]) -> None:
    """Begin as WeNet does, and measure the mean and spread of the bins."""
    for name, weight in model.named_parameters():
        if "pos_bias" in name:
            torch.nn.init.xavier_uniform_(weight)
    sample = recordings[:: max(len(recordings) // 200, 1)]
    features = np.concatenate([mel_features(each.samples) for each in sample])
    model.encoder.global_cmvn.mean.copy_(torch.from_numpy(features.mean(axis=0)))
    model.encoder.global_cmvn.istd.copy_(torch.from_numpy(1 / features.std(axis=0)))
    with torch.no_grad():
        model.ctc.ctc_lo.bias[0] = BLANK_AT_FIRST


def rate_at(step: int, share: float) -> float:
    """Return the learning rate: a rise over the first steps, then half a cosine of the time."""
    return PEAK_RATE * min((step + 1) / WARM_STEPS, 0.5 + 0.5 * math.cos(math.pi * min(share, 1)))


class Training:
    """The model as it learns.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.random = np.random.default_rng(SEED)
        torch.manual_seed(SEED)
        self.corpus = Corpus(options.speech / "train.tsv", small=options.small)
        self.ears = Ears(options.speech / "noise.tsv", self.random)
        self.units = learn_units(self.corpus.texts, LEAST_PAIRS)
        self.shape = ConformerShape(
            80, options.width, 4, 4 * options.width, options.layers, 15, len(self.units.names)
        )
        self.model = Conformer(self.shape, dropout=DROPOUT)
        prepare(self.model, self.corpus.an4)
        self.average = Conformer(self.shape).eval()
        self.average.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
        )
        self.step, self.epoch, self.spent_s, self.best = 0, 0, 0.0, math.inf
        self._resume()

    def _resume(self) -> None:
        path = self.out / "last.pt"
        if not path.is_file():
            return
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.epoch, self.spent_s, self.best = saved["progress"]
        self.random = np.random.default_rng(SEED + self.epoch)
        self.ears.random = self.random
        log.info("Goes on after epoch %d, %.0f minutes", self.epoch, self.spent_s / 60)

    @property
    def share(self) -> float:
        """Return how much of the time is spent, 0…1."""
        return float(self.spent_s / 60 / self.options.minutes)

    def run(self) -> None:
        """Learn until the time is over."""
        self._write_model_files()
        while self.share < 1:
            loss = self._epoch()
            error_rate = word_error_rate(
                self.average, self.corpus.development, self.units, CHUNKINGS[0]
            )
            log.info(
                "epoch %d, step %d, %.0f min: loss %.3f, word error rate %.1f %%",
                self.epoch,
                self.step,
                self.spent_s / 60,
                loss,
                100 * error_rate,
            )
            self._save(error_rate)

    def _epoch(self) -> float:
        losses = []
        self.model.train()
        easy = self.epoch < SHORT_EPOCHS
        self.ears.gentle = easy
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0 if easy else DROPOUT
        begin_s = time.monotonic()
        for batch in batches(
            self.corpus.epoch(self.epoch, self.random), self.ears, self.units, BATCH_S
        ):
            other = self.random.random() < 0.5
            chunking = CHUNKINGS[int(self.random.integers(len(CHUNKINGS))) if other else 0]
            first = chunking.cached_frames + int(self.random.integers(400)) * int(other)
            for group in self.optimizer.param_groups:
                group["lr"] = rate_at(self.step, self.share)
            loss = loss_of(self.model, batch, chunking, first, halved=self.options.bf16)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            self._average()
            self.step += 1
            losses.append(float(loss.detach()))
            now_s = time.monotonic()
            self.spent_s, begin_s = self.spent_s + now_s - begin_s, now_s
            if self.step % 50 == 0:
                log.info("step %d: loss %.3f", self.step, np.mean(losses[-50:]))
            if self.share >= 1:
                break
        self.epoch += 1
        return float(np.mean(losses))

    @torch.no_grad()
    def _average(self) -> None:
        kept = min(AVERAGED, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        for mean, weight in pairs:
            mean.lerp_(weight, 1 - kept)

    def _save(self, error_rate: float) -> None:
        if error_rate <= self.best or not (self.out / "final.pt").is_file():
            self.best = error_rate
            self._write(self.average.state_dict(), "final.pt")
        progress = [self.step, self.epoch, self.spent_s, self.best]
        saved: dict[str, Any] = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": progress,
        }
        self._write(saved, "last.pt")

    def _write(self, saved: dict[str, Any], name: str) -> None:
        staged = self.out / f".{name}"
        torch.save(saved, staged)
        staged.rename(self.out / name)

    def _write_model_files(self) -> None:
        self.units.write(self.out / "units.txt")
        shape = self.shape
        config = {
            "encoder": "conformer",
            "encoder_conf": {
                "output_size": shape.width,
                "attention_heads": shape.heads,
                "linear_units": shape.ffn,
                "num_blocks": shape.layers,
                "cnn_module_kernel": shape.kernel,
                "cnn_module_norm": shape.conv_norm,
                "causal": True,
                "use_cnn_module": True,
                "macaron_style": True,
                "activation_type": "swish",
                "input_layer": "conv2d",
                "pos_enc_layer_type": "rel_pos",
                "selfattention_layer_type": "rel_selfattn",
                "normalize_before": True,
                "use_dynamic_chunk": True,
            },
            "input_dim": shape.bins,
            "output_dim": shape.vocabulary,
        }
        text = yaml.safe_dump(config, sort_keys=False)
        (self.out / "train.yaml").write_text(text, encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--speech", type=Path, required=True, help="has train.tsv and noise.tsv")
    parser.add_argument("--out", type=Path, required=True, help="where the model is left")
    parser.add_argument("--minutes", type=float, default=100, help="of training")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="products in 16 bits")
    parser.add_argument("--small", action="store_true", help="AN4 alone, to try it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    Training(options).run()


if __name__ == "__main__":
    main()
