"""Unusual and invalid texts, by name."""

HOSTILE = {
    "empty": "",
    "spaces": "   \t\n\u3000",
    "NUL": "a\0b",
    "Latin-1": b"caf\xe9",
    "truncated UTF-8": "é".encode()[:1],
    "joined emoji": "👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 🇰🇷",
    "right to left": "\u202eשלום\u202c עולם \u200f",
    "accents without letters": "\u0301\u0300 \u0301",
    "many accents": "e" + "\u0301" * 300,
    "markers of pieces": "▁ <s> </s> ## <0x41> \ufffd",
    "noncharacters and controls": "\ufeff\uffff\U0010ffff\x01\x7f",
    "jamo outside syllables": "\u1112\u1161 ㅋㅋ \u11ab",
    "long": "x 한é" * 25_000,
}
