"""Currencies beside an amount, as people write them: symbols, codes, names, and the countries before a dollar."""

import re


SYMBOLS = "$£¤¥֏؋৳฿៛₠-₿"
"""Inside a regular expression's brackets. The cent is not in it: 50 ¢ are not 50."""
NAMES = frozenset(
    "usd eur gbp cny cnh rmb jpy inr hkd twd krw sgd aud cad nzd chf sek nok dkk isk rub brl mxn zar try thb idr myr "
    "php vnd pln czk huf ron bgn ils aed sar qar kwd bhd omr jod egp ngn kes ghs pkr bdt lkr uah clp ars dollar "
    "dollars buck bucks euro euros pound pounds sterling yuan renminbi yen won rupee rupees rs fr sfr franc francs "
    "peso pesos ruble rubles rouble roubles baht lira krona kronor krone kroner kr zł zloty zlotys kč forint forints "
    "lei hryvnia rand rands ringgit rupiah naira taka shilling shillings shekel shekels dirham dirhams riyal riyals "
    "dinar dinars real reais руб рубль рубля рублей грн гривен евро доллар доллара долларов".split()
)
COUNTRIES = frozenset(
    "us hk nt sg au ca nz mx jp cn c r s a american canadian australian british indian chinese japanese swiss".split()
)
"""Before a symbol or name: US$, HK$, Canadian dollars."""
CJK = re.compile("人民[币幣]|新?[台臺][币幣]|港[币幣元]|[美日欧歐加澳韩韓][元圆圓]|英[镑鎊]|卢比|円|圆|圓|元|원")
GLUED = re.compile(rf"\b(?:((?:rs|s?fr|kr|kč|zł|руб|грн)\.)|({'|'.join(sorted(NAMES))}))(?=\d)")
"""Before the digits of Rs.500 and USD500; the point of the first is none of a decimal."""
SYMBOL = re.compile(f"[{SYMBOLS}]")


def unglued(text: str) -> str:
    """A text in lower case with a space between the name of a currency and the digits behind it."""
    return GLUED.sub(lambda name: name[0].rstrip(".") + " ", text)


def is_currency(token: str, following: str) -> bool:
    """
    Whether a word or symbol is a currency.

    Args:
        token (`str`):
            In lower case.
        following (`str`):
            What stands behind it: a country counts before a currency only.
    """
    if token in COUNTRIES:
        return following in NAMES or bool(SYMBOL.fullmatch(following))
    return token in NAMES or bool(SYMBOL.fullmatch(token))
