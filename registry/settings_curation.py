"""Settings: which interactions become training data, and what a dataset is made of."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from registry.settings_types import Count, Part, Positive, Share

DatasetForm = Literal["chatml", "alpaca", "completion"]


class PiiSettings(Part):
    """Personal data that is replaced by placeholders."""

    enabled: bool = True
    phone_regions: tuple[str, ...] = ("US", "GB", "SA", "AE", "EG", "DE", "FR", "ES", "IN")
    """Countries (ISO 3166) whose national phone numbers are known beside international ones."""
    second_pass: bool = True
    """Look at what still looks suspicious with presidio and phonenumbers."""
    name_finder: str | None = None
    """`package.module:function` that finds what patterns cannot, such as names of persons: it is
    given a list of texts and returns for each a list of (start, end, kind)."""


class ModerationSettings(Part):
    """Text that a reviewer should see before it is learned."""

    enabled: bool = True
    words_file: str | None = None
    """Further words, one a line, in any language."""
    min_labels: Count = 200
    """Decisions of reviewers, at least 40 of each kind, before the classifier is fitted."""
    classifier_threshold: Share = 0.9
    """Chance of being rejected above which a text goes to the reviewers."""


class NearDuplicateSettings(Part):
    """When two samples count as the same."""

    enabled: bool = True
    similarity: Annotated[float, Field(gt=0.5, le=1)] = 0.7
    """Least Jaccard similarity of their words (of request and answer together)."""
    min_words: Count = 12
    """Shorter samples are compared exactly: one word makes another request of them."""


class DiversitySettings(Part):
    """How much of one kind a dataset may hold; unset, any amount."""

    max_samples: Count = 20_000
    """Samples of a dataset, the latest first; earlier ones take part by rehearsal."""
    max_per_domain: Count | None = 8_000
    max_per_language: Count | None = None
    max_per_user: Count | None = 500
    max_per_template: Count | None = 1_000
    choice: Literal["score", "farthest"] = "score"
    """Who stays inside a cap: drawn with the quality score as weight, or the most different."""


class CurationSettings(Part):
    """Which interactions become training data."""

    min_quality: Share = 0.7
    min_feedback: Annotated[int, Field(ge=-1, le=1)] = 1
    """Least `user_feedback` (-1, 0, 1) of an accepted answer."""
    maybe_min_quality: Share | None = None
    """Where set, answers of at least this quality are taken too if feedback is positive."""
    keep_disliked: bool = False
    """Keep what people disliked too, apart from the rest: objective kto learns from it."""
    max_chars: Count = 2_000_000
    """A longer request, conversation or answer is left out."""
    batch_rows: Count = 100_000
    """Interactions that are read, compared and written together, as one transaction."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that clean, scrub and sign the next batch while this one is compared and
    written; unset, two, or one less than the machine's cores. Fewer than 20,000 interactions
    need none."""
    validation_share: Share = 0.15
    test_share: Share = 0.05
    """Share that no training and no gate ever sees."""
    split_by_user_from: Count = 50
    """With as many users in a batch, all that a user says stands on one side; with fewer, equal
    requests do."""
    corrected_weight: Positive = 2
    """Weight of a corrected answer in training; an accepted one weighs 1."""
    rehearsal_file: str | None = None
    """JSONL of earlier samples that every dataset is merged with, against forgetting."""
    rehearsal_ratio: Annotated[float, Field(ge=0)] = 0.25
    """Rehearsal samples for each curated training sample, at most."""
    rehearsal_per_domain: Count = 500
    """Earlier samples of each domain that may be rehearsed."""
    forms: tuple[DatasetForm, ...] = ("chatml", "alpaca", "completion")
    """What datasets are written as, besides the ChatML that training reads."""
    classifier: str | None = None
    """`package.module:function`, frame to frame, that sets `domain` and `use_case` in place of
    the built-in rules."""
    report_examples: Annotated[int, Field(ge=0, le=20)] = 3
    """Scrubbed examples of what was left out, for each reason."""
    pii: PiiSettings = PiiSettings()
    moderation: ModerationSettings = ModerationSettings()
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()
    diversity: DiversitySettings = DiversitySettings()

    @property
    def min_quality_if_liked(self) -> float:
        """Least quality of an answer with a thumb up."""
        maybe = self.maybe_min_quality
        return self.min_quality if maybe is None else min(self.min_quality, maybe)

    @field_validator("forms")
    @classmethod
    def _each_once(cls, forms: tuple[DatasetForm, ...]) -> tuple[DatasetForm, ...]:
        return tuple(dict.fromkeys(forms))

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "CurationSettings":
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share} and test_share {self.test_share} "
                "leave nothing to train on"
            )
        return self
