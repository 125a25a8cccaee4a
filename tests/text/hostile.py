"""Texts that nobody expects, by name."""

HOSTILE = {
    "empty": "",
    "spaces": "   \t\n\u3000",
    "NUL": "a\0b",
    "Latin-1": b"caf\xe9",
    "bytes cut short": "é".encode()[:1],
    "emoji joined": "👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 🇰🇷",
    "right to left": "\u202eשלום\u202c עולם \u200f",
    "accents alone": "\u0301\u0300 \u0301",
    "many accents": "e" + "\u0301" * 300,
    "marks of pieces": "▁ <s> </s> ## <0x41> \ufffd",
    "no characters": "\ufeff\uffff\U0010ffff\x01\x7f",
    "jamo alone": "\u1112\u1161 ㅋㅋ \u11ab",
    "long": "x 한é" * 25_000,
}
