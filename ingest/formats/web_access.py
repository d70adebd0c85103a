r"""Web servers: access logs in the Common Log Format and as `combined`, and the error logs of Apache and nginx.

What a client sends stands within quotes with `"` written as `\"` or `\x22`, so a request cannot end its field. A
request need not be HTTP at all; then it is kept as `request` and has no method.

Trap: SigmaHQ's rules of category webserver look for paths in `cs-uri-query` ten times as often as for the query alone
(`/owa/`, `*?/dana/html5acc/guacamole/*`), so that field holds the whole target of the request, and `cs-uri-stem` the
path. Where there is no query, and the path alone is in question, `cs-uri-query` is not null.
Sources: Apache, mod_log_config and core ("ErrorLogFormat"); nginx, ngx_http_log_module; Sigma taxonomy, "Web Server".
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

_MONTH: Final = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY: Final = rf"\d\d/{_MONTH}/\d{{4}}:\d\d:\d\d:\d\d [+-]\d{{4}}"
COMBINED: Final = rf'^\s*\S+ \S+ [^\[\]"]+\[{_DAY}\] "'
ACCESS_DATASET: Final = "web.access"
ERROR_DATASET: Final = "web.error"

PRODUCTS: Final = {
    **dict.fromkeys(("apache", "apache2", "httpd"), "apache"),
    **dict.fromkeys(("nginx", "nginx-access", "nginx_access", "nginx-error"), "nginx"),
}
"""Program -> product; a file does not say which server wrote it."""

ACCESS_NAMES: Final = EnvelopeNames(
    time=(("@timestamp", True),), user=("cs-username",), source_ip=("c-ip",), host=("s-computername",)
)

_ACCESS: Final = (
    r"(?s)^\s*(?:(?P<vhost>[\w.-]+(?::\d{1,5})?) )?(?P<client>\S+) (?P<ident>\S+) (?P<user>[^\[\]\x22]*?) "
    rf"\[(?P<day>\d\d)/(?P<month>{_MONTH})/(?P<year>\d{{4}}):(?P<clock>\d\d:\d\d:\d\d) (?P<zone>[+-]\d{{4}})\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)(?:" (?P<status>\d{3}|-) (?P<bytes>\d+|-)'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?(?: (?P<rest>.*))?|(?P<cut>"?.*))$'
)
_REQUEST: Final = r"(?s)^(?P<method>[A-Za-z_-]{1,32}) (?P<target>.*?)(?: (?P<version>HTTP/\d(?:\.\d)?))?$"


def request_parts(text: pl.Series) -> pl.DataFrame:
    """What lines in one of the two forms say, in Sigma's names.

    `target` is what was asked for, and `cut` is not null if the line is cut.
    """
    read = text.str.extract_groups(_ACCESS).struct.unnest()
    number = pl.col("month").replace_strict(_MONTHS, default=None, return_dtype=pl.String)
    joined = pl.concat_str(
        [pl.col("year"), pl.lit("-"), number, pl.lit("-"), pl.col("day"), pl.lit("T"), pl.col("clock"), pl.col("zone")]
    )
    asked = read["request"].str.extract_groups(_REQUEST).struct.unnest()
    return read.hstack(asked).select(
        joined.alias("@timestamp"),
        pl.col("client").alias("c-ip"),
        _said("user").alias("cs-username"),
        pl.col("method").alias("cs-method"),
        "target",
        pl.col("version").alias("cs-version"),
        pl.col("status").alias("sc-status"),
        _said("bytes").alias("sc-bytes"),
        _said("referer").alias("cs-referer"),
        _said("agent").alias("cs-user-agent"),
        _said("vhost").alias("cs-host"),
        pl.when(pl.col("method").is_null()).then("request").alias("request"),
        _said("ident").alias("ident"),
        "rest",
        "cut",
    )


_MONTHS: Final = {
    name: f"{number:02}"
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}


def _said(name: str) -> pl.Expr:
    return pl.when(~pl.col(name).is_in(["-", ""])).then(pl.col(name))


def parse_access(lines: pl.DataFrame) -> Parsed:
    """One piece a product, where the syslog header names one."""
    product = pl.col("program").replace_strict(PRODUCTS, default=None, return_dtype=pl.String)
    pieces: list[Piece] = []
    remarks: dict[int, str] = {}
    rejects: dict[int, str] = {}
    parts = lines.select("row", "payload", product.alias("product")).partition_by(
        "product", as_dict=True, maintain_order=True
    )
    for (name,), part in parts.items():
        read = request_parts(part["payload"])
        whole = read["@timestamp"].is_not_null()
        rejects.update(dict.fromkeys(part["row"].filter(~whole).to_list(), "no access log after all"))
        part, read = part.filter(whole), read.filter(whole)
        remarks.update(dict.fromkeys(part["row"].filter(read["cut"].is_not_null()).to_list(), "cut record"))
        target = pl.col("target")
        fields = read.with_columns(
            target.alias("cs-uri"),
            target.alias("cs-uri-query"),
            target.str.extract(r"^(?:[\w+.-]+://[^/?#]*)?([^?#]*)").alias("cs-uri-stem"),
            pl.col("c-ip").alias("src_ip"),
        ).drop("target", "cut")
        if part.height:
            source = LogSource(None if name is None else str(name), "webserver", None if name is None else str(name))
            pieces.append(Piece(source, ACCESS_DATASET, part["row"], fields, ACCESS_NAMES))
    return Parsed(pieces, rejects, remarks)


NGINX_ERROR: Final = (
    r"^\s*\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(?:emerg|alert|crit|error|warn|notice|info|debug)\] \d+#\d+: "
)
_LEVELS: Final = "(?:emerg|alert|crit|error|warn|notice|info|debug|trace[1-8])"
APACHE_ERROR: Final = (
    rf"^\s*\[[A-Z][a-z]{{2}} {_MONTH} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{{1,6}})? \d{{4}}\] \[(?:[\w-]*:)?{_LEVELS}\] "
)
ERROR: Final = pl.col("payload").str.contains(f"{NGINX_ERROR}|{APACHE_ERROR}")
ERROR_NAMES: Final = EnvelopeNames(time=(("@timestamp", True),), source_ip=("c-ip",))

_NGINX: Final = (
    r"(?s)^\s*(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>\w+)\] (?P<pid>\d+)#(?P<tid>\d+): "
    r"(?:\*(?P<connection>\d+) )?"
    r"(?P<message>.*?)(?:, client: (?P<client>[0-9A-Fa-f.:]+)(?:, server: (?P<server>[^,]*))?"
    r'(?:, request: "(?P<request>.*?)")?(?:, (?:upstream|subrequest): ".*?")*(?:, host: '
    r'"(?P<host>[^"]*)")?(?P<rest>.*))?$'
)
_APACHE: Final = (
    r"(?s)^\s*\[\w{3} (?P<month>\w{3}) (?P<day>[ \d]\d) (?P<clock>[\d:.]+) (?P<year>\d{4})\] "
    r"\[(?:(?P<module>[\w-]*):)?(?P<level>\w+)\] (?:\[pid (?P<pid>\d+)(?::tid (?P<tid>\d+))?\] )?"
    r"(?:\[(?:client|remote) (?P<client>[0-9A-Fa-f.:]+?)(?::(?P<port>\d{1,5}))?\] )?(?:(?P<code>AH\d{5}): "
    r")?(?P<message>.*)$"
)


def parse_errors(lines: pl.DataFrame) -> Parsed:
    """One piece a server; their service is what SigmaHQ's rules name."""
    nginx = lines["payload"].str.contains(NGINX_ERROR)
    pieces = []
    for product, part in (("nginx", lines.filter(nginx)), ("apache", lines.filter(~nginx))):
        if part.height:
            fields = _nginx_errors(part) if product == "nginx" else _apache_errors(part)
            pieces.append(Piece(LogSource(product, None, product), ERROR_DATASET, part["row"], fields, ERROR_NAMES))
    return Parsed(pieces)


def _nginx_errors(lines: pl.DataFrame) -> pl.DataFrame:
    read = lines["payload"].str.extract_groups(_NGINX).struct.unnest()
    return read.select(
        pl.col("time").str.replace_all("/", "-", literal=True).str.replace(" ", "T", literal=True).alias("@timestamp"),
        "level",
        pl.col("pid").alias("process.pid"),
        "connection",
        "message",
        pl.col("client").alias("c-ip"),
        "server",
        "request",
        pl.col("host").alias("cs-host"),
    )


def _apache_errors(lines: pl.DataFrame) -> pl.DataFrame:
    read = lines["payload"].str.extract_groups(_APACHE).struct.unnest()
    number = pl.col("month").replace_strict(_MONTHS, default=None, return_dtype=pl.String)
    day = pl.col("day").str.replace(" ", "0", literal=True)
    return read.select(
        pl.concat_str([pl.col("year"), pl.lit("-"), number, pl.lit("-"), day, pl.lit("T"), pl.col("clock")]).alias(
            "@timestamp"
        ),
        *("module", "level"),
        pl.col("pid").alias("process.pid"),
        pl.col("client").alias("c-ip"),
        pl.col("port").alias("c-port"),
        *("code", "message"),
    )
