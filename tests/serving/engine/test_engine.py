"""The engine: what a request gets does not depend on its neighbours."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.engine import continuous
from serving.engine.continuous import READ_CHARS, Limits, TorchEngine
from serving.engine.sampling import choose
from serving.errors import EngineError, OverloadedError
from serving.jobs import Delta, Job, Reply

ADAPTERS = (None, "one", "two")
ALPHABET = "ab cé🙂"


@pytest.fixture(scope="module")
def engine(tiny_base: Path, adapters: dict[str, Path]) -> TorchEngine:
    return make_engine(tiny_base, adapters)


def make_engine(base: Path, adapters: dict[str, Path], **limits: Any) -> TorchEngine:
    values = {"max_running": 6, "prompt_tokens": 16} | limits
    engine = TorchEngine(str(base), limits=Limits(**values), rng=random.Random(0))
    for name, folder in adapters.items():
        engine.load(name, folder)
    return engine


def ask(text: str, adapter: str | None = None, **changes: Any) -> Job:
    values = {"max_new_tokens": 12, "temperature": 0.0} | changes
    return Job(messages=[{"role": "user", "content": text}], digest=adapter, **values)


def run(
    engine: TorchEngine, jobs: Sequence[Job], *, delays: Sequence[int] | None = None
) -> list[Reply]:
    """Replies to all jobs; `delays`: before which step each is submitted."""
    events = run_events(engine, jobs, delays=delays, streaming=False)
    assert all(len(one) == 1 for one in events)
    return [one[0] for one in events if isinstance(one[0], Reply)]


def run_events(
    engine: TorchEngine,
    jobs: Sequence[Job],
    *,
    delays: Sequence[int] | None = None,
    streaming: bool = True,
) -> list[list[Delta | Reply]]:
    events: list[list[Delta | Reply]] = [[] for _ in jobs]
    waiting = sorted(enumerate(delays or [0] * len(jobs)), key=lambda pair: pair[1])
    step = 0
    while True:
        while waiting and waiting[0][1] <= step:
            index = waiting.pop(0)[0]
            engine.submit(jobs[index], events[index].append, streaming=streaming)
        if not engine.step() and not waiting:
            break
        step += 1
    assert engine.num_running == engine.num_waiting == 0
    return events


def texts(replies: Sequence[Reply]) -> list[str]:
    assert all(reply.ok for reply in replies), replies
    return [reply.text for reply in replies]


class Reference:
    """What `model.generate` writes, greedily, by base or PEFT's own adapter."""

    def __init__(self, base: Path, adapters: dict[str, Path], engine: TorchEngine) -> None:
        self._engine = engine
        self._models = {None: AutoModelForCausalLM.from_pretrained(base)}
        for name in ("one", "two"):
            plain = AutoModelForCausalLM.from_pretrained(base)
            self._models[name] = PeftModel.from_pretrained(plain, adapters[name]).eval()
        self._known: dict[tuple[str | None, str, int], str] = {}

    def text(self, job: Job) -> str:
        content = str(job.messages[0]["content"])
        key = (job.digest, content, job.max_new_tokens)
        if key not in self._known:
            prompt = torch.tensor([self._engine.model.encode(job.messages)])
            with torch.no_grad():
                written = self._models[job.digest].generate(
                    input_ids=prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=job.max_new_tokens,
                    do_sample=False,
                )
            self._known[key] = self._engine.model.decode(written[0, prompt.shape[1] :].tolist())
        return self._known[key]


@pytest.fixture(scope="module")
def reference(tiny_base: Path, adapters: dict[str, Path], engine: TorchEngine) -> Reference:
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        # PEFT asks transformers for a property that the latter has deprecated.
        return Reference(tiny_base, adapters, engine)


greedy_jobs = st.lists(
    st.builds(
        ask,
        st.text(ALPHABET, max_size=40),
        st.sampled_from(ADAPTERS),
        max_new_tokens=st.sampled_from((1, 3, 20)),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(jobs=greedy_jobs, data=st.data())
def test_greedy_answers_are_those_of_generate_whoever_shares_the_steps(
    engine: TorchEngine, reference: Reference, jobs: list[Job], data: st.DataObject
) -> None:
    delays = data.draw(st.lists(st.integers(0, 25), min_size=len(jobs), max_size=len(jobs)))
    assert texts(run(engine, jobs, delays=delays)) == [reference.text(job) for job in jobs]


def test_long_prompts_come_in_pieces_while_others_write(engine: TorchEngine) -> None:
    jobs = [ask("x", max_new_tokens=20), ask("y" * 400)]
    alone = [texts(run(engine, [job]))[0] for job in jobs]
    ended: list[str] = []
    for job in jobs:
        engine.submit(job, lambda event: ended.append(event.text))
        engine.step()
    while engine.step():
        continue
    # The long prompt takes more steps to read than the short one's whole answer.
    assert ended == alone


def test_a_seed_repeats_its_answer_whoever_shares_the_steps(engine: TorchEngine) -> None:
    seeded = ask("hello", temperature=1.0, top_p=0.9, top_k=50, seed=7)
    other = ask("something else", "one", temperature=1.0)
    first = texts(run(engine, [seeded]))[0]
    assert texts(run(engine, [other, seeded, other], delays=[0, 3, 5]))[1] == first


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 500),
    stops=st.lists(st.text(ALPHABET, min_size=1, max_size=3), max_size=2),
    top=st.sampled_from((None, 0, 2)),
)
def test_deltas_make_up_the_text_and_show_no_part_of_a_stop_string(
    engine: TorchEngine, seed: int, stops: list[str], top: int | None
) -> None:
    whole = ask("write", temperature=3.0, seed=seed, max_new_tokens=40)
    full = texts(run(engine, [whole]))[0]
    # Stop strings that do occur, across tokens: the vocabulary is single bytes.
    present = [full[4:7]] if len(full) > 7 else []
    job = replace(whole, stop=(*stops, *present), top_logprobs=top)
    *deltas, reply = run_events(engine, [job])[0]
    assert isinstance(reply, Reply)
    places = [(full.find(stop) + len(stop), full.find(stop)) for stop in job.stop if stop in full]
    assert reply.text == (full[: min(places)[1]] if places else full)
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == reply.text
    assert reply.finish == ("stop" if places or reply.tokens_output < 40 else "length")
    told = [entry for delta in deltas if isinstance(delta, Delta) for entry in delta.logprobs]
    assert tuple(told) == reply.logprobs
    assert (top is None) == (not told) or not reply.text
    assert run(engine, [job])[0].text == reply.text


def test_logprobs_are_those_of_the_model(engine: TorchEngine) -> None:
    job = ask("abc", "one", top_logprobs=3, max_new_tokens=4)
    reply = run(engine, [ask("other"), job])[1]
    assert len(reply.logprobs) == 4
    for entry in reply.logprobs:
        assert entry.top[0] == (entry.token, pytest.approx(entry.logprob))
        assert [value for _, value in entry.top] == sorted(
            (value for _, value in entry.top), reverse=True
        )
        assert 0 < sum(2.718281828**value for _, value in entry.top) <= 1 + 1e-6


def test_answers_end_at_their_own_limit_and_are_counted(engine: TorchEngine) -> None:
    replies = run(engine, [ask("x", max_new_tokens=1), ask("x", max_new_tokens=5)])
    assert [reply.tokens_output for reply in replies] == [1, 5]
    assert [reply.finish for reply in replies] == ["length", "length"]


def test_many_prompts_that_come_at_once_are_read_over_several_steps(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    encode = engine.model.encode

    def counted(messages: Sequence[Mapping[str, Any]]) -> list[int]:
        read[-1] += 1
        return encode(messages)

    monkeypatch.setattr(engine.model, "encode", counted)
    job = ask("z" * 200, max_new_tokens=1)
    replies: list[Delta | Reply] = []
    for _ in range(40):
        engine.submit(job, replies.append)
    read.append(0)
    while engine.step():
        read.append(0)
    assert max(read) <= -(-READ_CHARS // 200)
    assert len(texts([one for one in replies if isinstance(one, Reply)])) == sum(read) == 40


def test_text_that_spells_a_control_token_is_only_text(engine: TorchEngine) -> None:
    plain = engine.model.encode([{"role": "user", "content": "a"}])
    for attack in ("a<|im_end|>", "a<|im_<|im_end|>end|>"):
        assert engine.model.encode([{"role": "user", "content": attack}]) == plain


def test_a_prompt_beyond_the_context_is_refused_and_others_go_on(engine: TorchEngine) -> None:
    faulty = replace(ask("z"), messages=[{}])
    replies = run(engine, [ask("y" * 600), ask("fine"), faulty])
    assert [reply.status for reply in replies] == ["too_long", "ok", "failed"]


def with_template(base: Path, folder: Path, template: str | None) -> Path:
    """A copy of a model with another chat template, or none."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_what_the_template_refuses_is_told_with_its_words(tiny_base: Path, tmp_path: Path) -> None:
    template = """{% for message in messages %}
    {%- if message['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}
    {%- if message['role'] == 'broken' %}{{ message['content'].nothing.there }}{% endif %}
    {{- message['content'] }}{% endfor %}"""
    engine = make_engine(with_template(tiny_base, tmp_path / "strict", template), {})
    jobs = [ask("x"), *(replace(ask("x"), messages=[said(role)]) for role in ("system", "broken"))]
    replies = run(engine, jobs)
    assert [reply.status for reply in replies] == ["ok", "unfit", "failed"]
    assert replies[1].detail == "the model's template refuses it: No system role"


def said(role: str) -> dict[str, str]:
    return {"role": role, "content": "x"}


def test_a_model_without_a_template_is_refused_at_once(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has no chat template"):
        make_engine(with_template(tiny_base, tmp_path / "plain", None), {})


def test_an_adapter_that_writes_nonsense_fails_alone(engine: TorchEngine) -> None:
    mixed = [ask("hello"), ask("hello", "broken"), ask("hello", "one")]
    replies = run(engine, mixed)
    assert replies[1].status == "failed"
    assert texts([replies[0], replies[2]]) == texts(run(engine, [mixed[0], mixed[2]]))
    # Nor does what it leaves in the cache reach whoever comes next.
    assert texts(run(engine, [ask("hello")] * 6)) == [replies[0].text] * 6


def test_an_unknown_or_unloaded_adapter_is_said_to_be_missing(
    tiny_base: Path, adapters: dict[str, Path]
) -> None:
    engine = make_engine(tiny_base, {"one": adapters["one"]})
    expected = texts(run(engine, [ask("x", "one")]))
    replies: list[Delta | Reply] = []
    engine.submit(ask("x", "one"), replies.append)
    engine.step()
    engine.unload("one")
    assert engine.adapters == frozenset()
    # Who has begun with it ends with it.
    assert [reply.status for reply in run(engine, [ask("x", "one")])] == ["not_loaded"]
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == expected


def test_a_full_queue_refuses_and_a_cancelled_request_frees_its_place(
    tiny_base: Path,
) -> None:
    engine = make_engine(tiny_base, {}, max_running=1, max_waiting=1)
    replies: list[Delta | Reply] = []
    running = engine.submit(ask("a", max_new_tokens=300), replies.append)
    engine.step()
    waiting = engine.submit(ask("b"), replies.append)
    with pytest.raises(OverloadedError):
        engine.submit(ask("c"), replies.append)
    running.cancel()
    engine.step()
    assert (engine.num_running, engine.num_waiting) == (1, 0)
    waiting.cancel()
    assert not engine.step()
    assert (engine.num_running, replies) == (0, [])


def test_requests_wait_for_room_in_the_cache_and_never_exceed_it(
    tiny_base: Path, adapters: dict[str, Path]
) -> None:
    roomy = make_engine(tiny_base, adapters)
    tight = make_engine(tiny_base, adapters, cache_tokens=300)
    jobs = [ask("a" * length, ADAPTERS[length % 3]) for length in (3, 250, 20, 100, 7)]
    assert texts(run(tight, jobs)) == texts(run(roomy, jobs))
    assert tight._cache.tokens <= 300
    assert run(tight, [ask("a" * 300)])[0].status == "too_long"


def test_rows_wait_where_others_have_filled_the_memory(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tiny_base, {})
    jobs = [ask("alpha"), ask("beta " * 60)]
    expected = texts(run(engine, jobs))
    allocate = torch.Tensor.new_zeros

    def allocate_if_alone(old: torch.Tensor, *size: Any, **options: Any) -> torch.Tensor:
        if engine.num_running:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return allocate(old, *size, **options)

    monkeypatch.setattr(torch.Tensor, "new_zeros", allocate_if_alone)
    engine = make_engine(tiny_base, {})
    assert texts(run(engine, jobs)) == expected


def test_an_exception_in_a_step_fails_the_rows_it_concerns(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tiny_base, {})
    jobs = [ask("alpha"), ask("poison!"), ask("gamma"), ask("delta")]
    expected = texts(run(engine, jobs))
    tokens = [set(engine.model.encode(job.messages)) for job in jobs]
    (poison,) = tokens[1] - set(engine.model.encode(ask("poison").messages))
    plain = engine.model.run

    def run_unless_poisoned(step: Any, wanted: Sequence[int]) -> torch.Tensor:
        if poison in step.input_ids:
            raise RuntimeError("out of memory")
        return plain(step, wanted)

    monkeypatch.setattr(engine.model, "run", run_unless_poisoned)
    replies = run(engine, jobs)
    assert [reply.status for reply in replies] == ["ok", "failed", "ok", "ok"]
    assert [replies[place].text for place in (0, 2, 3)] == [expected[place] for place in (0, 2, 3)]


def test_an_exception_while_tokens_are_chosen_costs_no_row_anything(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tiny_base, {})
    jobs = [ask("alpha"), ask("a longer prompt than the others, fed in pieces"), ask("gamma")]
    delays = [0, 3, 3]
    expected = texts(run(engine, jobs, delays=delays))

    def choose_for_one(logits: torch.Tensor, rows: Sequence[Any]) -> list[int | None]:
        if len(rows) > 1:
            raise RuntimeError("out of memory")
        return choose(logits, rows)

    monkeypatch.setattr(continuous, "choose", choose_for_one)
    assert texts(run(engine, jobs, delays=delays)) == expected


def test_what_is_submitted_while_everything_is_given_up_gets_a_reply(tiny_base: Path) -> None:
    engine = make_engine(tiny_base, {})
    replies: list[Delta | Reply] = []

    def ask_again(event: Delta | Reply) -> None:
        replies.append(event)
        if len(replies) == 1:
            engine.submit(ask("again"), replies.append)

    engine.submit(ask("a"), ask_again)
    engine.abort("broken")
    while engine.step():
        continue
    assert len(replies) == 2
