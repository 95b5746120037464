"""A run of distillation: from a model and recordings to weights that hear in passes.

In: `Options`. Out: a folder with the checkpoint, the log, the curves and the weights. Runs on the
caller's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from harkd.bench_words import MISSING, load_normalizer
from harkd.speech_list import read_list
from harkd_convert.distil.batches import Batches
from harkd_convert.distil.corpus import Clip, hold_out, read_corpus, seconds_of
from harkd_convert.distil.evaluation import (
    Agreement,
    Said,
    agreement,
    errors_by_category,
    some,
    texts,
)
from harkd_convert.distil.export import write_weights
from harkd_convert.distil.hearing import read_surroundings
from harkd_convert.distil.learning import Student
from harkd_convert.distil.objective import Teacher
from harkd_convert.distil.options import Options
from harkd_convert.distil.passes import Plan
from harkd_convert.distil.plot import draw
from harkd_convert.distil.run_log import HELD, LOSSES, WORDS, RunLog, read_log
from harkd_convert.distil.streaming_encoder import StreamingEncoder
from harkd_convert.distil.teacher_text import TeacherTexts
from harkd_convert.distil.token_text import TokenText
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine import Encoder, Moonshine
from harkd_convert.sources import open_source

CHECKPOINT, LOG, TEXTS, WEIGHTS = "last.pt", "log.jsonl", "teacher.jsonl", "weights"
LOGGED_STEPS = 10
MOST_HELD_S = 160.0
"""Of what is held out, so much is heard at each evaluation."""

Say = Callable[[str], None]


class Run:
    """One run.

    Args:
        options: What it is made of.
        say: Told what happens, line by line.

    Raises:
        HarkdError: The model, a list or a recording cannot be used.
        ConvertError: `out` holds a run already, or has none to be resumed.
    """

    def __init__(self, options: Options, say: Say) -> None:
        self.options, self.say = options, say
        out = options.out
        checkpoint = out / CHECKPOINT
        if checkpoint.is_file() and not options.resume:
            raise ConvertError(f"{out} holds a run already", "add --resume, or name another --out")
        if options.resume and not checkpoint.is_file():
            raise ConvertError(f"{out} has no {CHECKPOINT}", "begin without --resume")
        device = device_of(options.device)
        self.source = open_source(options.source)
        read = read_corpus(options.corpora, options.speaker)
        self.train, held = hold_out(read)
        around = read_surroundings(options.noises, options.rooms)
        self.said = self._read_said(read)
        out.mkdir(parents=True, exist_ok=True)
        self.text = TokenText(self.source.tokenizer)
        model = Moonshine.from_source(self.source).to(device)
        self.teacher = Teacher(model, options.recipe.dtype)
        begin = [self._begin_with(each).to(device) for each in options.begin]
        self.student = Student(self.teacher, options.recipe, begin)
        known = TeacherTexts(self.teacher, out / TEXTS)
        self.held = some(held, MOST_HELD_S)
        self.batches = Batches(
            self.train,
            around,
            options.plans,
            options.batch_s,
            options.seed,
            options.balance,
            options.joined_s,
            known.add,
        )
        self.about = options.about | {"source": self.source.checksums}
        if options.resume:
            for difference in self.student.resume(checkpoint, self.about):
                say(f"Not the same run: {difference}")
        self.log = RunLog(out / LOG, self.student.step)
        say(
            f"{len(self.train)} recordings of {seconds_of(self.train) / 3600:.2f} h to train on, "
            f"{len(self.held)} of {seconds_of(self.held):.0f} s held out, "
            f"{len(around.noises)} noises, {len(around.rooms)} rooms; "
            f"step {self.student.step} of {options.recipe.steps}"
        )
        known.add(self.held)

    def _begin_with(self, path: Path) -> Encoder:
        source = open_source(path)
        if source.shape != self.source.shape:
            raise ConvertError(
                f"{path} has other layers than {self.options.source}",
                "begin with weights that were made of that model",
            )
        return Moonshine.from_source(source).encoder

    def _read_said(self, trained: Sequence[Clip]) -> list[Said]:
        listed = self.options.evaluated
        if listed is None:
            return []
        if load_normalizer("en") is None:
            raise ConvertError(MISSING, "pip install 'harkd[convert]'")
        pairs = zip(read_corpus([listed]), read_list(listed), strict=True)
        said = [Said(clip, each.category, each.text) for clip, each in pairs if each.text]
        if not said:
            raise ConvertError(f"{listed} does not say what is said", "give texts in column 4")
        known = {each.path.resolve() for each in trained}
        if both := [each.clip.path for each in said if each.clip.path.resolve() in known]:
            raise ConvertError(
                f"{len(both)} recordings of {listed} would be trained on, such as {both[0]}",
                "take them out of one of the lists",
            )
        return said

    def go(self) -> None:
        """Train to the last step, evaluating on the way; write the weights."""
        student, options = self.student, self.options
        if student.step == 0 or student.step >= options.recipe.steps:
            self.evaluate(spoken=bool(self.said))
            self.write()
        evaluated_s = begin_s = time.monotonic()
        heard_s = 0.0
        sums = [0.0, 0.0, 0.0]
        while student.step < options.recipe.steps:
            batch = self.batches.batch(student.step)
            losses = student.learn(batch)
            heard_s += batch.seconds
            for place, value in enumerate(losses.figures):
                sums[place] += value / LOGGED_STEPS
            if student.step % LOGGED_STEPS == 0:
                pace = heard_s / (time.monotonic() - begin_s)
                self._log_losses(sums, pace)
                sums = [0.0, 0.0, 0.0]
                student.save(options.out / CHECKPOINT, self.about)
            last = student.step >= options.recipe.steps
            if student.step % options.evaluate_steps == 0 or last:
                student.save(options.out / CHECKPOINT, self.about)
                spoken = time.monotonic() - evaluated_s > 60 * options.evaluate_minutes or last
                self.evaluate(spoken=spoken and bool(self.said))
                evaluated_s = time.monotonic() if spoken else evaluated_s
                self.write()

    def _log_losses(self, sums: list[float], pace: float) -> None:
        hidden, divergence, alike = sums
        student = self.student
        self.log.add(
            LOSSES,
            step=student.step,
            seconds=student.seconds,
            hidden=hidden,
            divergence=divergence,
            agreement=alike,
            rate=student.recipe.rate_at(student.step - 1),
        )
        self.say(
            f"step {student.step}, {student.seconds:.0f} s: hidden {hidden:.4f}, "
            f"divergence {divergence:.4f}, tokens alike {100 * alike:.2f} %, "
            f"{pace:.1f} s of audio a second"
        )

    def evaluate(self, *, spoken: bool) -> None:
        """Hear what was held out and, if `spoken`, the evaluated list, with each blend."""
        options, student = self.options, self.student
        plans = options.judged or tuple(options.plans)
        for keep in options.keep:
            encoder = StreamingEncoder(student.blended(keep), dtype=options.recipe.dtype)
            if self.held:
                for plan, found in agreement(self.held, self.teacher, encoder, plans).items():
                    self._log_agreement(plan, keep, found)
            if spoken:
                for plan in plans:
                    self._log_words(encoder, plan, keep)

    def _log_agreement(self, plan: Plan, keep: float, found: Agreement) -> None:
        self.log.add(
            HELD,
            step=self.student.step,
            seconds=self.student.seconds,
            plan=str(plan),
            keep=keep,
            hidden=found.hidden,
            divergence=found.divergence,
            agreement=found.tokens,
        )
        self.say(
            f"  held out, {plan}, {keep:g} kept: hidden {found.hidden:.4f}, "
            f"divergence {found.divergence:.4f}, tokens alike {100 * found.tokens:.2f} %"
        )

    def _log_words(self, encoder: StreamingEncoder, plan: Plan, keep: float) -> None:
        normalizer = load_normalizer("en")
        if normalizer is None:
            return
        heard = texts(self.said, self.teacher, encoder, plan, self.text)
        errors = errors_by_category(self.said, heard, normalizer)
        counts = {name: [each.errors, each.words] for name, each in errors.items()}
        self.log.add(
            WORDS,
            step=self.student.step,
            seconds=self.student.seconds,
            plan=str(plan),
            keep=keep,
            errors=counts,
        )
        told = ", ".join(f"{name} {each.percent}" for name, each in errors.items())
        self.say(f"  {plan}, {keep:g} kept, word error rate in %: {told}")

    def write(self) -> None:
        """Write the weights, mixed with as much of the original ones as the first `keep` says."""
        keep = self.options.keep[0]
        notes = (
            f"Encoder taught to hear in passes ({', '.join(map(str, self.options.plans))}): "
            f"{self.student.step} steps, {self.student.seconds:.0f} s of audio, "
            f"{keep:g} of the original weights mixed in."
        )
        model = self.student.model(keep)
        write_weights(self.options.out / WEIGHTS, self.source, model, notes)
        if self.options.plot:
            draw(read_log(self.log.path), self.options.plot)


def device_of(name: str) -> torch.device:
    """Return a device of PyTorch's by its name; raises ConvertError where there is none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ConvertError(
            f'PyTorch cannot compute on "{name}" ({reason})', "name cpu, or cuda on an NVIDIA GPU"
        ) from error
    return device
