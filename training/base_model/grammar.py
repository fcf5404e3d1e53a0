"""The words that carry a request: openings, artefacts, markers, wishes. Data only.

Everything else in a request is a slot, filled with fresh words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache


def _either(text: str) -> tuple[str, ...]:
    """The alternatives in "a|b|c"."""
    return tuple(text.split("|"))


OPENINGS = _either(
    "please|pls|plz|can you|could you|can u|would you|will you|could you please|can you please|"
    "would you please|I need you to|I want you to|I would like you to|I'd like you to|help me|"
    "help me to|please help me|kindly|hey,|hi,|hello,|hi there,|I have to|I need to|I want to|"
    "I would like to|I'd like to|we need to|we have to|we want to|let's|now|ok,|so|quickly|just|"
    "I must|I should|I am trying to|I'm trying to|trying to|how do I|how can I|how should I|"
    "how do we|how would you|what is the best way to|your task is to|your job is to|need to|"
    "can you help me|could you help me to|do you mind helping me|it would be great if you could|"
    "I was asked to|my boss wants me to|I was wondering if you could|try to|go ahead and"
)
"""What may come before a verb and says nothing of the task."""

NEEDS = _either(
    "I need|I want|I'd like|I would like|we need|we want|looking for|I'm looking for|give me|"
    "please give me|get me|can I have|could I get|can I get|need|want|I am after|I require|"
    "send me|show me|please send|we are looking for|there should be|let me have|I could use|"
    "do you have|could you give me|can you give me|help me with|I need help with"
)
"""What may come before a noun phrase and says nothing of the task."""

MAKES = _either(
    "write|write|write|draft|compose|create|make|prepare|produce|craft|generate|put together|"
    "come up with|do|design|build|deliver|write up|write me|make me|write us|work on|type|author"
)

DETERMINERS = ("a", "a", "a", "an", "the", "one", "my", "our", "this", "another", "some")

PLAIN_ADJECTIVES = _either(
    "short|quick|good|great|nice|new|simple|brief|clear|long|detailed|proper|perfect|little|"
    "one-page|well written|solid|second|better|follow-up|catchy|strong"
)
"""Adjectives of an artefact that are no wish the product knows."""

ARTEFACTS: Mapping[str, tuple[str, ...]] = {
    "email": _either("email|email|email|e-mail|mail|message|letter|note|reply|mail text"),
    "report": _either(
        "report|report|report|memo|overview|analysis|brief|briefing|summary|status update|study|"
        "one page brief|paper|review|executive summary|write-up|document"
    ),
    "social": _either(
        "post|post|tweet|caption|thread|LinkedIn post|linkedin post|Facebook post|Instagram post|"
        "instagram caption|status|announcement|social media post|story|update|blurb"
    ),
    "image": _either(
        "image|picture|picture|photo|drawing|illustration|poster|painting|sketch|portrait|icon|"
        "wallpaper|scene|artwork|rendering|banner|cover|close-up"
    ),
}
"""What the tools that have a wrapper ("write an email about …") make."""

LINKS: Mapping[str, tuple[str, ...]] = {
    "email": ("about", "about", "on", "regarding", "concerning", "re:", "explaining", "saying"),
    "report": ("about", "about", "on", "on", "of", "regarding", "covering", "that covers", "into"),
    "social": ("about", "about", "about", "on", "announcing", "that says", "celebrating", "saying"),
    "image": ("of", "of", "of", "showing", "with", "that shows", "depicting", "where you see"),
}
"""Words between an artefact and a noun-phrase task."""

DRAW_VERBS = _either(
    "draw|paint|sketch|illustrate|render|draw me|show|imagine|see|visualise|picture"
)

VERBS = _either(
    "explain|describe|summarize|summarise|compare|list|fix|analyse|analyze|review|improve|rewrite|"
    "translate|plan|announce|promote|request|schedule|cancel|confirm|ask about|"
    "reschedule|close|invite|follow up on|introduce|present|propose|check|update|"
    "refactor|convert|sort|parse|test|debug|optimise|implement|write|write down|find|show|teach|"
    "outline|evaluate|design|build|make|solve|calculate|organise|prepare|discuss|negotiate|order|"
    "return|celebrate|share|recommend|sell|rename|merge|count|discover|learn|understand|choose|"
    "save|change|reduce|double|join|give|tell|get|turn down|set up|call off|welcome|decline|accept"
)
QUESTION_OPENINGS = _either(
    "tell me|tell us|I wonder|do you know|I want to know|I'd like to know|can you tell me|explain|"
    "I don't understand|I would like to understand|remind me|help me understand|please tell me"
)

CODE_MAKES = ("write", "write", "create", "implement", "build", "make", "code", "add", "")
CODE_THINGS = _either(
    "function|python function|script|bash script|class|program|SQL query|query|regex|unit test|"
    "test|command line tool|method|web page|loop|module|snippet|command|macro|"
    "api endpoint|algorithm"
)
CODE_LINKS = ("that", "that", "which", "to", "to", "for")
"""Parts of a coding task; all of them stay in the task, since the language matters there."""

VERBS_WITH_FOR = _either(
    "apologise for|apologises for|apologize for|ask for|asks for|apply for|pay for|search for|"
    "look for|looks for|wait for|prepare for|vote for|plan for|say sorry for|arrange for|"
    "account for"
)
"""Verbs whose "for" is no audience's."""

PREPOSITIONS = _either(
    "of|of|of|in|in|with|with|on|at|from|by|and|and|or|between|about|without|after|before|to|to|"
    "into|near|against|through|during|over|under|behind|as"
)
"""Words inside a slot."""

QUESTIONS = _either(
    "how|how does|why|why does|why do|what is|what are|what does|when should|which|who|"
    "where can I find|what happens when|how many|how much|is it true that|should we|what causes"
)

SPEAKING_VERBS = ("explain", "describe", "teach", "present", "introduce", "promote", "show", "sell")
"""Verbs whose "to …" names the audience."""

ADDRESS_VERBS = _either(
    "email|write|write to|message|mail|text|contact|tell|inform|notify|reply to|respond to|"
    "write back to|send a note to|drop a line to|get back to|reach out to|answer"
)
"""Verbs followed by the audience, then the task."""

VERBATIM_ADDRESS = (
    ("thank", "for"),
    ("remind", "about"),
    ("remind", "of"),
    ("ask", "about"),
    ("ask", "for"),
    ("invite", "to"),
    ("convince", "to"),
    ("warn", "about"),
    ("congratulate", "on"),
    ("persuade", "to"),
    ("follow up with", "about"),
    ("follow up with", "after"),
)
"""Verb and link around an audience, where the whole clause is the task."""

AUDIENCE_MARKERS = _either(
    "for|for|for|for|for|for|aimed at|targeting|intended for|meant for|written for|addressed to|"
    "directed at|geared towards|suitable for|tailored to|to suit|, for|, audience:|, readers:|"
    "- for|targeted at|to be read by|that works for|, the audience is|, it is for|, it's for"
)

AUDIENCE_FRONTS = ("for", "for", "to", "audience:", "my audience is", "this is for", "readers are")

PEOPLE = _either(
    "customers|students|beginners|complete beginners|kids|children|my boss|the board|investors|"
    "the team|my team|our team|teachers|parents|young parents|managers|engineers|developers|"
    "my landlord|the bank|colleagues|employees|new employees|patients|tourists|a friend|my mother|"
    "my father|my sister|my neighbour|a five year old|experts|non-experts|everyone in the office|"
    "the marketing team|the sales team|the ministry|the whole company|small business owners|voters|"
    "clients|our clients|users|volunteers|our volunteers|shareholders|journalists|the press|readers"
)

TONES = _either(
    "friendly|formal|polite|warm|urgent|funny|casual|serious|professional|confident|apologetic|"
    "enthusiastic|neutral|humorous"
)

TONE_MARKERS = (
    ", {}",
    ", {} please",
    "in a {} tone",
    ", {} tone",
    ", in a {} tone",
    ", keep it {}",
    ", make it {}",
    ". make it {}",
    ", it should be {}",
    ", with a {} tone",
    ". {} tone please",
    ", tone: {}",
    "and keep it {}",
    "and make it {}",
    "in a {} way",
    "in a {} voice",
    ", be {}",
    "- {}",
    ", it should sound {}",
    "with a {} message",
    ", something {}",
)

STYLES = _either(
    "watercolor|watercolour|oil painting|pixel art|pencil sketch|anime|cartoon|line art|vintage|"
    "cyberpunk|minimalist|3D render|black and white|comic book|impressionist|art deco|flat design|"
    "charcoal|isometric|surreal|pop art|abstract|clay|low poly"
)

STYLE_MARKERS = (
    ", {}",
    ", {}",
    ", {}",
    "in {}",
    "in {} style",
    "in the style of {}",
    ", {} style",
    ", in {}",
    ", make it {}",
    ", as {}",
    "- {}",
    ", style: {}",
    "as a {}",
    ", style of {}",
    "with a {} look",
)

MENTION_MARKERS = _either(
    ", mention|and mention|, please mention|. mention|, include|and include|. include|"
    ", don't forget|, make sure to mention|. please include|, be sure to include|, also mention|"
    ", it should mention|. make sure to include|, mentioning|, including|, must mention|"
    ", and don't forget to mention|. say something about|, with a mention of|, remember to mention"
)

LIMIT_MARKERS = (
    "under {} words",
    ", under {} words",
    "in {} words",
    ", max {} words",
    ", maximum {} words",
    ", no more than {} words",
    "in at most {} words",
    ", {} words max",
    ", keep it under {} words",
    ". keep it under {} words",
    "in less than {} words",
    "in fewer than {} words",
    ", not more than {} words",
    ", up to {} words",
    "within {} words",
    ", limit {} words",
)

EMPTY_WISHES = _either(
    ", keep it short|, short please|, nothing fancy|. keep it simple|, quickly|, today|, asap|"
    ", as soon as possible|, nice and short|, easy to read|, not too long|, be concise"
)

TAILS = _either(
    "please|pls|, please|, thanks|, thank you|thx|, thanks in advance|, would you|for me|, ok"
)

TIMES = _either(
    "Monday|Friday|next week|next month|this year|tomorrow|the weekend|two weeks|3 days|the summer|"
    "Thursday afternoon|the first quarter|12 May|June|tonight|the winter|a week|the coming year"
)
"""What may follow "for" without being an audience."""

ARABIC_HEADS = _either(
    "اكتب|اكتب بريدا إلكترونيا|اكتب رسالة|اكتب تقريرا|اكتب منشورا|اكتب تغريدة|اشرح|اشرح كيف|لخص|"
    "ارسم|صورة|لوحة|تقرير عن|كيف|كيف أتعلم|ما هو|ما هي|أريد|قارن بين|ترجم|صمم|حضر|أعلن عن|اطلب"
)
"""Starts of an Arabic request; they stay in the task."""

ARABIC_PREPOSITIONS = ("في", "من", "عن", "على", "مع", "بعد", "قبل", "حول", "بين", "تحت")
ARABIC_AUDIENCE_MARKERS = ("موجه إلى", "إلى", "من أجل", "للجمهور:", "موجهة إلى")
ARABIC_OPENINGS = ("من فضلك", "لو سمحت", "رجاء", "هل يمكنك أن", "أرجو أن")


@cache
def vocabulary() -> frozenset[str]:
    """Every word of this module's lists, in lower case: no word that training never saw."""
    words = (word for text in _texts(globals()) for word in re.findall(r"[\w'-]+", text.lower()))
    return frozenset(words)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            if name != "__doc__" and isinstance(entry, tuple | Mapping):
                yield from _texts(entry)
    elif isinstance(value, tuple):
        for entry in value:
            yield from _texts(entry)
