"""Text as people write it to a model, with planted near-duplicates, personal data and insults."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

ARABIC = [
    "العمل",
    "المدينة",
    "القهوة",
    "الاجتماع",
    "المشروع",
    "التقرير",
    "الفريق",
    "العميل",
    "الموعد",
    "السوق",
    "الكتاب",
    "المدرسة",
    "الطريق",
    "البيت",
    "الحديقة",
    "السفر",
    "الطعام",
    "الصحة",
    "الرياضة",
    "الموسيقى",
    "الصورة",
    "الرسالة",
    "الفكرة",
    "الخطة",
    "الميزانية",
    "الإدارة",
    "التدريب",
    "الجودة",
    "المنتج",
    "الخدمة",
    "السعر",
    "العرض",
    "الشركة",
    "الموظف",
    "المدير",
    "الطالب",
    "المعلم",
    "الطبيب",
    "المهندس",
    "الصباح",
    "المساء",
    "الشتاء",
    "الصيف",
    "البحر",
    "الجبل",
    "النهر",
    "السماء",
    "القمر",
    "الشمس",
    "الوقت",
    "اليوم",
    "الأسبوع",
    "الشهر",
    "السنة",
    "جديد",
    "قديم",
    "كبير",
    "صغير",
    "سريع",
    "بطيء",
    "مهم",
    "سهل",
    "صعب",
    "جميل",
    "واضح",
    "مختصر",
    "رسمي",
    "ودود",
    "دقيق",
    "شامل",
    "يومي",
    "سنوي",
    "يكتب",
    "يقرأ",
    "يشرح",
    "يرسل",
    "يطلب",
    "يحتاج",
    "يريد",
    "يعمل",
    "يدرس",
    "يسافر",
    "يبيع",
    "يشتري",
    "يصمم",
    "يطور",
    "يراجع",
    "يحسن",
    "يختصر",
    "عن",
    "من",
    "إلى",
    "على",
    "في",
    "مع",
    "بعد",
    "قبل",
    "خلال",
    "حول",
    "بين",
    "تحت",
    "فوق",
    "عند",
    "لدى",
    "منذ",
    "حتى",
    "لأن",
    "لكن",
    "ثم",
]
TEMPLATES = {
    "en": (
        "Please write a {} email to our {} about the {} and the {}, mention the {} and keep it {} "
        "so that every {} understands why the {} matters",
        "Summarise the {} report on {} for the {} board and list the {} risks, the {} costs and "
        "what the {} team should do about {} before the {} review",
    ),
    "ar": (
        "اكتب رسالة {} إلى {} حول {} و {} مع ذكر {} واجعلها {} حتى يفهم كل {} سبب أهمية {}",
        "لخص تقرير {} عن {} لمجلس {} واذكر مخاطر {} وتكاليف {} وما يجب على فريق {} فعله "
        "بشأن {} قبل {}",
    ),
}


@cache
def english() -> Sequence[str]:
    """Some thousand English words."""
    return (files("training.base_model") / "english.txt").read_text("utf-8").split()


class Writer:
    """Writes texts from its own randomness."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def words(self, number: int, language: str = "en") -> list[str]:
        """Words that occur as unequally as they do in language."""
        listed = english() if language == "en" else ARABIC
        size = len(listed)
        return [listed[int(size * self.rng.random() ** 2)] for _ in range(number)]

    def prose(self, language: str = "en", *, least: int = 15, most: int = 60) -> str:
        """A text of so many words."""
        return " ".join(self.words(self.rng.randint(least, most), language))

    def templated(self, language: str = "en") -> str:
        """One of two templates with eight words filled in: more than a quarter is its own."""
        template = self.rng.choice(TEMPLATES[language])
        return template.format(*(" ".join(self.words(2, language)) for _ in range(8)))

    def edited(self, text: str, language: str = "en") -> str:
        """The text with 5 to 15 % of its words changed, dropped, doubled or swapped."""
        words = text.split()
        number = max(1, int(len(words) * self.rng.uniform(0.05, 0.15)))
        for place in sorted(self.rng.sample(range(len(words)), number), reverse=True):
            act = self.rng.choice(("change", "change", "drop", "add", "swap"))
            if act == "change":
                words[place] = self.words(1, language)[0]
            elif act == "drop":
                del words[place]
            elif act == "add":
                words.insert(place, self.words(1, language)[0])
            elif place + 1 < len(words):
                words[place], words[place + 1] = words[place + 1], words[place]
        return " ".join(words)

    def letters(self, number: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        """Random characters."""
        return "".join(self.rng.choices(alphabet, k=number))

    def digits(self, number: int) -> str:
        """Random digits, none of them leading zeros."""
        return self.rng.choice("123456789") + self.letters(number - 1, string.digits)


def with_luhn(digits: str) -> str:
    """The digits and their check digit."""
    total = 0
    for place, letter in enumerate(reversed(digits)):
        value = int(letter) * (2 - place % 2)
        total += value - 9 * (value > 9)
    return digits + str(-total % 10)


def _grouped(text: str, size: int, sign: str) -> str:
    return sign.join(text[start : start + size] for start in range(0, len(text), size))


def _email(write: Writer) -> str:
    name = ".".join(write.words(2)).lower()
    host = write.rng.choice(("example.com", "mail.example.org", "acme.co.uk", "sub.firma.de"))
    return f"{name}{write.rng.choice(('', '+news', '_' + write.digits(2)))}@{host}"


def _phone(write: Writer) -> str:
    rng = write.rng
    shapes: tuple[Callable[[], str], ...] = (
        lambda: f"+1 {rng.choice(('212', '415', '202'))}-{rng.randint(220, 989)}-{write.digits(4)}",
        lambda: f"+44 7911 {write.digits(6)}",
        lambda: f"+9665{rng.choice('03456')}{write.digits(7)}",
        lambda: f"+971 50 {write.digits(3)} {write.digits(4)}",
        lambda: f"+49 151 {write.digits(8)}",
        lambda: f"({rng.choice(('212', '415', '202'))}) {rng.randint(220, 989)}-{write.digits(4)}",
        lambda: f"05{rng.choice('03456')}{write.digits(7)}",
        lambda: f"0100{write.digits(7)}",
    )
    return rng.choice(shapes)()


def _card(write: Writer) -> str:
    number = with_luhn(write.rng.choice(("4", "51", "55")) + write.digits(15))[:16]
    number = with_luhn(number[:15])
    return write.rng.choice((number, _grouped(number, 4, " "), _grouped(number, 4, "-")))


def _iban(write: Writer) -> str:
    country, bban = write.rng.choice(
        (
            ("GB", write.letters(4, string.ascii_uppercase) + write.digits(14)),
            ("DE", write.digits(18)),
            ("SA", write.digits(2) + write.letters(18, string.digits + string.ascii_uppercase)),
            ("AE", write.digits(19)),
            ("FR", write.digits(23)),
        )
    )
    turned = "".join(str(int(letter, 36)) for letter in f"{bban}{country}00")
    iban = f"{country}{98 - int(turned) % 97:02}{bban}"
    return write.rng.choice((iban, _grouped(iban, 4, " ")))


def _ip(write: Writer) -> str:
    rng = write.rng
    if rng.random() < 0.5:
        inner = f"{rng.randint(0, 255)}.{rng.randint(0, 255)}"
        return f"{rng.randint(11, 223)}.{inner}.{rng.randint(1, 254)}"
    groups = [write.letters(4, "0123456789abcdef") for _ in range(4)]
    return rng.choice((f"2001:db8:{':'.join(groups)}:1:2", f"fe80::{':'.join(groups)}"))


def _id(write: Writer) -> str:
    rng = write.rng
    shapes: tuple[Callable[[], str], ...] = (
        lambda: f"{rng.randint(101, 665)}-{rng.randint(11, 98)}-{write.digits(4)}",
        lambda: with_luhn(rng.choice("12") + write.digits(8)),
        lambda: with_luhn(f"784{rng.randint(1950, 2005)}{write.digits(7)}"),
        lambda: (
            f"2{rng.randint(50, 99)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
            f"{rng.randint(1, 35):02}{write.digits(5)}"
        ),
        lambda: _dni(write.digits(8)),
    )
    return rng.choice(shapes)()


def _dni(digits: str) -> str:
    return digits + "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23]


def _url(write: Writer) -> str:
    user, host = write.words(1)[0].lower(), write.rng.choice(("db.example.com", "10.1.2.3:5432"))
    return write.rng.choice(
        (
            f"postgresql://{user}:{write.letters(10)}@{host}/app",
            f"https://{user}:{write.letters(8)}@git.example.com/repo.git",
            f"https://api.example.com/v1/items?id=7&access_token={write.letters(24)}",
        )
    )


def _secret(write: Writer) -> str:
    upper = string.ascii_uppercase + string.digits
    return write.rng.choice(
        (
            f"AKIA{write.letters(16, upper)}",
            f"ghp_{write.letters(36)}",
            f"sk-proj-{write.letters(40)}",
            f"sk_live_{write.letters(24)}",
            f"xoxb-{write.digits(11)}-{write.letters(24)}",
            f"AIza{write.letters(35)}",
            f"hf_{write.letters(34)}",
            f"eyJ{write.letters(20)}.eyJ{write.letters(40)}.{write.letters(43)}",
        )
    )


PII: dict[str, Callable[[Writer], str]] = {
    "EMAIL": _email,
    "PHONE": _phone,
    "CARD": _card,
    "IBAN": _iban,
    "IP": _ip,
    "ID": _id,
    "URL": _url,
    "SECRET": _secret,
}
SENTENCES = {
    "EMAIL": ("Please write to {} about it.", "my address is {}, thanks", "راسلني على {} من فضلك"),
    "PHONE": ("call me at {} tomorrow", "my phone number is {}.", "رقم الجوال {} للتواصل"),
    "CARD": ("charge card {} for the order", "the card number is {}.", "رقم البطاقة {} للدفع"),
    "IBAN": ("transfer it to {} today", "IBAN: {}", "رقم الآيبان {} للتحويل"),
    "IP": ("the server at {} is down", "requests come from {} all day", "عنوان الخادم {} لا يعمل"),
    "ID": ("my national id is {}.", "identity number {} on the form", "رقم الهوية {} في الطلب"),
    "URL": ("the app connects to {} now", "see {} for the log", "الرابط هو {} للدخول"),
    "SECRET": ("the token is {} in my config", "use {} for the API", "المفتاح {} في الملف"),
}
_ARABIC_DIGITS = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
NUMBERS = ("PHONE", "CARD", "ID")
"""Kinds that are also written in Arabic-Indic digits."""


def planted(write: Writer, kind: str) -> tuple[str, str]:
    """A piece of personal data and a text that holds it."""
    value = PII[kind](write)
    sentence = write.rng.choice(SENTENCES[kind])
    if kind in NUMBERS and "ر" in sentence and value[-1].isdigit() and write.rng.random() < 0.5:
        value = value.translate(_ARABIC_DIGITS)
    return value, f"{write.prose(most=25)} {sentence.format(value)} {write.prose(most=20)}"


def clean_text(write: Writer) -> str:
    """Text with numbers, dates, versions, times and names that are nobody's data."""
    rng = write.rng
    pieces = (
        lambda: f"order {write.digits(8)} of {rng.randint(1, 28)}/{rng.randint(1, 12)}/2025",
        lambda: f"at {rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}",
        lambda: f"version {rng.randint(0, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}.1",
        lambda: f"total {rng.randint(1, 999)},{write.digits(3)}.{rng.randint(10, 99)} EUR",
        lambda: "std::vector and a::b",
        lambda: f"https://www.example.com/{write.words(1)[0]}?page={rng.randint(1, 9)}",
        lambda: f"2025-{rng.randint(1, 12):02}-{rng.randint(1, 28):02} {rng.randint(10, 23)}:00",
        lambda: f"@{write.words(1)[0]} and #{write.words(1)[0]}",
        lambda: f"invoice {write.digits(10)} paid",
        lambda: write.prose(most=20),
    )
    return f"{write.prose(most=25)} {rng.choice(pieces)()} {write.prose(most=25)}"


INSULTS = (
    "you are a piece of shit",
    "what an a$$hole",
    "f.u.c.k this",
    "kill yourself",
    "يا ابن الكلب",
)
"""Planted where moderation should see something."""
