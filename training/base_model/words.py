"""Fresh words: what the base model learns to copy, drawn anew for every request.

A model that sees a fixed list of words memorises it; one that sees words made on the spot
learns to copy. A fifth of all words, by hash, is held out of training: requests that
evaluate, and those of simulated users, use only words of that fifth.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from training.base_model import grammar

KINDS = ("english", "invented", "arabic", "accented", "names", "numbers")
"""What a fresh word may be."""

_HELD_OUT_ONE_IN = 5
_TRIES = 1000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONSETS = _words("b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gr kr pl pr sh sk st th tr")
_VOWELS = _words("a e i o u a e i o u ai ea ee ie oo ou y")
_CODAS = _words("- - - n r s t l m d k p x nd ng nt rk st sh ck th")
_ACCENTS = {
    "a": "áàâäãå",
    "c": "çćč",
    "e": "éèêëę",
    "i": "íîï",
    "n": "ñń",
    "o": "óòôöõø",
    "s": "šşß",
    "u": "úùûü",
    "y": "ý",
    "z": "žż",
    "l": "ł",
    "g": "ğ",
}
_ARABIC_LETTERS = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
_ARABIC_WORDS = _words(
    "اجتماع مدير شركة عميل مشروع تقرير رسالة موعد طلب عقد ميزانية مبيعات تسويق موظف مكتب مدرسة "
    "جامعة طالب معلم كتاب قصة شعر موسيقى صورة لوحة قطة كلب حصان طائر بحر جبل صحراء مدينة قرية "
    "شارع بيت حديقة زهرة شجرة قمر نجم فضاء سماء ليل نهار صباح مساء صيف شتاء ربيع خريف مطر ريح "
    "سيارة طائرة قطار سفينة رحلة فندق مطعم طعام قهوة شاي خبز سكر ملح ماء حليب سوق متجر سعر خصم "
    "عرض منتج خدمة جودة صحة طبيب مستشفى دواء رياضة كرة لاعب فريق مباراة برنامج حاسوب شبكة بيانات "
    "ملف نظام لغة ترجمة سؤال جواب فكرة خطة هدف نتيجة سبب مشكلة حل درس امتحان شهادة وظيفة راتب "
    "إجازة عطلة حفل زفاف ميلاد عائلة أم أب أخ أخت صديق جار طفل رجل امرأة ملك وزير حكومة قانون "
    "محكمة شرطة أمن سلام حرب تاريخ علم فيزياء كيمياء أحياء رياضيات خوارزمية دالة جدول قائمة رقم "
    "السنوي الشهري الجديد القديم الكبير الصغير الأول الثاني الأخير السريع البطيء الجميل المهم"
)
_ARABIC_PREFIXES = ("", "", "", "ال", "ال", "ال", "و", "ب", "لل", "وال", "مت", "است")
_ARABIC_SUFFIXES = ("", "", "", "", "ة", "ات", "ين", "ون", "ية", "ها", "نا")  # noqa: RUF001
_TITLES = ("Dr.", "Mr.", "Mrs.", "Ms.", "Prof.", "Captain", "Sister", "Judge")


def is_held_out(word: str) -> bool:
    """Whether `word`, whatever its case, is kept out of training."""
    return zlib.crc32(word.lower().encode()) % _HELD_OUT_ONE_IN == 0


@cache
def english_words() -> tuple[str, ...]:
    """About 2,700 lower-case English words, in a fixed order."""
    return tuple(Path(__file__).with_name("english.txt").read_text("utf-8").split())


def fresh_word(rng: random.Random, kind: str, *, unseen: bool, pieces: Sequence[str] = ()) -> str:
    """A word of `kind` from the held-out fifth when `unseen`, from the rest otherwise.

    `pieces` are fragments (a tokenizer's entries) from which invented words may be built,
    so that training reaches each of them.
    """
    make = _MAKERS[kind]
    for _ in range(_TRIES):
        word = make(rng, pieces)
        # The words of the grammar itself are seen whatever their hash.
        if is_held_out(word) == unseen and not (unseen and word.lower() in grammar.vocabulary()):
            return word
    raise RuntimeError(f"No {kind} word on the wanted side of the split in {_TRIES} draws.")


def name(rng: random.Random, *, unseen: bool) -> str:
    """A person's or a place's name of one to three parts, some with a title or an initial."""
    parts = [fresh_word(rng, "names", unseen=unseen) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    if rng.random() < 0.3:
        parts.insert(0, rng.choice(_TITLES))
    elif rng.random() < 0.12:
        parts.insert(0, rng.choice("ABCDEFGHJKLMNRSTW") + ".")
    elif rng.random() < 0.05:
        parts += ["&", rng.choice(("Co", "Sons", "Partners"))]
    return " ".join(parts)


def _english(rng: random.Random, pieces: Sequence[str]) -> str:
    del pieces
    return _dressed(rng, rng.choice(english_words()))


def _invented(rng: random.Random, pieces: Sequence[str]) -> str:
    roll = rng.random()
    if pieces and roll < 0.45:
        return "".join(rng.choice(pieces) for _ in range(rng.choice((1, 1, 2, 2, 3))))
    if roll < 0.65:
        return _dressed(rng, _syllables(rng))
    if roll < 0.9:
        return _dressed(rng, _fragments(rng))
    letters = "abcdefghijklmnopqrstuvwxyz"
    return _dressed(rng, "".join(rng.choice(letters) for _ in range(rng.randint(3, 8))))


def _fragments(rng: random.Random) -> str:
    """Two slices of English words glued together: familiar pieces in new places."""
    slices = []
    for _ in range(2):
        source = rng.choice(english_words())
        start = rng.randrange(len(source) - 2)
        slices.append(source[start : start + rng.randint(2, 5)])
    return "".join(slices)


def _arabic(rng: random.Random, pieces: Sequence[str]) -> str:
    del pieces
    if rng.random() < 0.4:
        return rng.choice(("", "", "ال")) + rng.choice(_ARABIC_WORDS)
    stem = "".join(rng.choice(_ARABIC_LETTERS) for _ in range(rng.randint(3, 5)))
    if rng.random() < 0.15:
        stem = rng.choice("أإآ") + stem
    return rng.choice(_ARABIC_PREFIXES) + stem + rng.choice(_ARABIC_SUFFIXES)


def _accented(rng: random.Random, pieces: Sequence[str]) -> str:
    del pieces
    source = rng.choice(english_words()) if rng.random() < 0.4 else _syllables(rng)
    places = [i for i, letter in enumerate(source) if letter in _ACCENTS]
    if not places:
        return source + "é"
    letters = list(source)
    for place in rng.sample(places, k=min(len(places), rng.choice((1, 1, 1, 2)))):
        letters[place] = rng.choice(_ACCENTS[letters[place]])
    word = "".join(letters)
    return word.capitalize() if rng.random() < 0.3 and word[0].isalpha() else word


def _names(rng: random.Random, pieces: Sequence[str]) -> str:
    del pieces
    word = _syllables(rng).capitalize()
    roll = rng.random()
    if roll < 0.06:
        return rng.choice(("Al-", "El-", "O'", "Mc", "De")) + word
    return word + "-" + _syllables(rng).capitalize() if roll < 0.09 else word


def _numbers(rng: random.Random, pieces: Sequence[str]) -> str:
    del pieces
    return rng.choice(_NUMBER_FORMS)(rng)


_NUMBER_FORMS: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: str(rng.randrange(10 ** rng.randint(1, 5))),
    lambda rng: str(rng.randrange(1900, 2100)),
    lambda rng: str(rng.randrange(1, 100) * 10 ** rng.randint(1, 4)),
    lambda rng: f"{rng.randrange(1, 1000)},{rng.choice(('000', '500', '000,000'))}",
    lambda rng: f"{rng.choice('$€£')}{rng.randrange(1, 5000)}",
    lambda rng: f"${rng.randrange(1, 900)},{rng.randrange(1000):03d}",
    lambda rng: f"{rng.randrange(1, 300)},{rng.randrange(1000):03d}",
    lambda rng: f"{rng.randrange(24)}:{rng.randrange(60):02d}",
    lambda rng: f"{rng.randrange(1, 13)}{rng.choice(('am', 'pm'))}",
    lambda rng: f"{rng.randrange(1, 100)}%",
    lambda rng: f"{rng.randrange(1, 100)}.{rng.randrange(100)}",
    lambda rng: f"v{rng.randrange(10)}.{rng.randrange(30)}",
    lambda rng: f"#{rng.choice('ABCDEFGHKX')}-{rng.randrange(10000)}",
    lambda rng: f"{rng.choice('ABCDEFGHKXQ')}{rng.randrange(1000)}",
    lambda rng: f"{rng.randrange(1, 60)}-{rng.choice(('day', 'page', 'year', 'minute'))}",
    lambda rng: f"{rng.randrange(1, 32)}/{rng.randrange(1, 13)}",
)


def _syllables(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        coda = rng.choice(_CODAS)
        parts.append(rng.choice(_ONSETS) + rng.choice(_VOWELS) + ("" if coda == "-" else coda))
    return "".join(parts)


def _dressed(rng: random.Random, word: str) -> str:
    """The word as people type it: mostly plain, now and then capital, hyphened, possessive."""
    roll = rng.random()
    if roll < 0.8:
        return word
    if roll < 0.9:
        return word.capitalize()
    if roll < 0.93:
        return word.upper()
    if roll < 0.975:
        return word + "'s"
    return f"{word}-{_syllables(rng)}"


_MAKERS: dict[str, Callable[[random.Random, Sequence[str]], str]] = {
    "english": _english,
    "invented": _invented,
    "arabic": _arabic,
    "accented": _accented,
    "names": _names,
    "numbers": _numbers,
}
