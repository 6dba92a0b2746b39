"""`alea generate -f requests.jsonl`: every line a request with its own settings, answered as `alea serve` would."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from model import interrupt
from model.commands.arguments import checked_text, chosen_seed, given_sampling, load_model, model_settings
from model.commands.generation_file import Line, opened, write
from model.commands.grammar import in_requests
from model.commands.prompts import file_text, lines
from model.commands.terminal import counted, progress, show, tell
from model.untrusted import shown
from samplers.extras import how_to_install

Object = dict[str, Any]
PLAIN = {"prompt"}  # a line with nothing else is a prompt, which `alea generate` numbers through the call
USELESS = ("prompt", "num_return_sequences", "beams", "sample", "length_penalty", "early_stopping", "max_length")
AHEAD = 4  # requests that are ready, for each row of the batch


def is_request_file(arguments: argparse.Namespace) -> bool:
    """Whether --file is JSONL in which some line holds more than a prompt."""
    name = arguments.file
    if name is None or not name.endswith(".jsonl") or not Path(name).is_file():
        return False
    return any(isinstance(value, dict) and set(value) != PLAIN for _, value in parsed_lines(name))


def parsed_lines(name: str) -> Iterator[tuple[str, Any]]:
    """(where, the value of the line); None where it is no JSON."""
    for number, line in lines(file_text(name)):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        yield f"--file {name} line {number}", value


def answer_file(arguments: argparse.Namespace) -> int:
    """Answer every line; returns the exit status. All lines are checked before the first token is drawn."""
    try:
        import model.serve.offline  # noqa: F401  # needs pydantic
    except ModuleNotFoundError as error:
        raise RuntimeError(f"requests need {error.name}: {how_to_install('serve')}") from None
    check_options(arguments)
    values = list(parsed_lines(arguments.file))
    job = Job(arguments, values)
    job.check()
    if arguments.out is None:
        show_answers(job)
        return 0
    with opened(arguments.out, job.settings(), 1, arguments.seed is None, arguments.overwrite) as file:
        job.seed = file.settings["seed"]
        if not write(file, job.answers(file.done), len(values)):
            return interrupt.STATUS
    tell(f"wrote {arguments.out}: {len(values)} answers")
    return 0


def check_options(arguments: argparse.Namespace) -> None:
    """Raises: ValueError for an option that would be ignored."""
    given = [name for name in USELESS if getattr(arguments, name) not in (None, 1, False)]
    given += [name for name in ("json", "stream") if getattr(arguments, name)]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} does not apply to a file of requests")


class Job:
    """The requests and the model of one run.

    Options of the command fill what a line leaves out. Without --seed, line i gets the seed of the run plus i.
    """

    def __init__(self, arguments: argparse.Namespace, values: list[tuple[str, Any]]) -> None:
        from model.commands.serving import service_of
        from model.serve.engine.engine import Engine

        self.arguments, self.values, self.seed = arguments, values, chosen_seed(arguments)
        self.llama, tokenizer = load_model(arguments)
        self.engine = Engine(self.llama, arguments.batch_size)
        self.service = service_of(arguments, self.llama, tokenizer, self.engine)

    @functools.cached_property
    def defaults(self) -> Object:
        arguments = self.arguments
        stop = [checked_text("--stop", text) for text in arguments.stop or ()]
        given = {"max_tokens": arguments.max_new_tokens, "stop": stop or None, "logprobs": arguments.logprobs}
        return {**given_sampling(arguments), **{name: value for name, value in given.items() if value is not None}}

    def asked(self, number: int) -> Any:
        """(request, reply) of a line. Raises: ValueError naming file, line and field."""
        from model.serve.offline import asked_by

        line = self.line(number)
        try:
            return asked_by(self.service, line)
        except ValueError as error:
            raise ValueError(f"{self.values[number][0]}: {error}") from None

    def line(self, number: int) -> Any:
        from model.serve.offline import line_of

        where, value = self.values[number]
        if not isinstance(value, dict):
            raise ValueError(f"{where}: must be a JSON object, got {shown(value)}")
        try:
            line = line_of(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        seed = self.seed if self.arguments.seed is not None else self.seed + number
        grammar = {} if "response_format" in line.body else in_requests(self.arguments)
        return line._replace(body={**self.defaults, **grammar, "seed": seed, **line.body})

    def check(self) -> None:
        for number in range(len(self.values)):
            self.asked(number)

    def answers(self, skip: Collection[int] = ()) -> Iterator[tuple[int, list[Line]]]:
        """(number of the line, its answer in OpenAI's batch format) as they come."""
        from model.serve.offline import answers

        numbers = [number for number in range(len(self.values)) if number not in skip]
        makers = ((number, functools.partial(self.asked, number)) for number in numbers)
        with progress("requests", len(self.values)) as on_progress:
            found = answers(self.engine, makers, AHEAD * self.arguments.batch_size)
            for number, request, body in counted(found, on_progress, len(skip)):
                yield number, [self.answered(number, request.choices[0].settings.seed, body)]

    def answered(self, number: int, seed: int, body: Object) -> Line:
        name = self.line(number).custom_id or f"line-{number + 1}"
        response = {"status_code": 200, "request_id": body["id"], "body": body}
        return {"id": f"batch_req_{number}", "custom_id": name, "seed": seed, "response": response, "error": None}

    def settings(self) -> Object:
        """Everything an answer depends on, as JSON values."""
        digest = hashlib.sha256(json.dumps([value for _, value in self.values]).encode()).hexdigest()
        model = model_settings(self.arguments, self.llama)
        return {
            "seed": self.seed,
            "requests_sha256": digest[:16],
            **model,
            **self.defaults,
            **in_requests(self.arguments),
        }


def show_answers(job: Job) -> None:
    """On stdout in the order of the lines, each as soon as all before it are shown."""
    waiting: dict[int, Line] = {}
    shown_lines = 0
    for number, (line,) in job.answers():
        waiting[number] = line
        while shown_lines in waiting:
            show(json.dumps(waiting.pop(shown_lines), ensure_ascii=False) + "\n")
            shown_lines += 1
