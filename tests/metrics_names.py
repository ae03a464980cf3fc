"""Checks what rules and dashboard name against a scrape: tests/metrics.sh calls this.

Each metric that they name must be in the scrape, with each label that they select or sum by. Writes the
dashboard's queries as recording rules, for promtool to check.
"""

import json
import re
import sys

# What Prometheus itself adds.
SCRAPE_LABELS = {"job", "instance"}
METRIC = r"(?:flow_proxy|process)_[a-z_]+"
SAMPLE = re.compile(rf"^({METRIC})(?:\{{(.*)\}})? \S+$")
SELECTOR = re.compile(rf"({METRIC})(?:\{{([^}}]*)\}})?")
LABEL = re.compile(r'([a-z_]+)\s*(?:=~|!=|!~|=)\s*"(?:[^"\\]|\\.)*"')
BY = re.compile(r"\bby \(([^)]*)\)")


def main(scrape, alerts, dashboard, rules):
    with open(scrape, encoding="utf-8") as file:
        told = labels_of(file)
    with open(alerts, encoding="utf-8") as file:
        text = file.read()
    queries = {f"{alerts}: {name}": query for name, query in alert_queries(text)}
    with open(dashboard, encoding="utf-8") as file:
        panels = list(panel_queries(json.load(file)))
    queries |= {f"{dashboard}: {name}": query for name, query in panels}
    assert len(queries) > len(panels) > 0, "no queries found"
    found = [line for place, query in queries.items() for line in problems(place, query, told)]
    with open(rules, "w", encoding="utf-8") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": recording_rules(panels)}]}, file)
    print("\n".join(found) or f"{len(queries)} queries name only what is there")
    return 1 if found else 0


def labels_of(lines):
    """The labels of each metric."""
    told = {}
    for line in lines:
        if sample := SAMPLE.match(line):
            told.setdefault(sample[1], set()).update(LABEL.findall(sample[2] or ""))
    return told


def alert_queries(text):
    """The queries of alerts.yml, each in one line or folded; no reader of YAML is needed for that."""
    for alert in re.split(r"^ +- alert: ", text, flags=re.M)[1:]:
        name = alert.split("\n", 1)[0]
        yield name, re.search(r"^ +expr: (.*?)^ +(?:for|labels):", alert, re.M | re.S)[1]


def panel_queries(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} ({target['refId']})", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = re.search(r"label_values\((.*), [a-z]+\)$", variable["query"]["query"])
            yield f"${variable['name']}", query[1]


def problems(place, query, told):
    summed_by = {name for names in BY.findall(query) for name in re.split(r",\s*", names)}
    known = set(SCRAPE_LABELS)
    for metric, selector in SELECTOR.findall(query):
        if metric not in told:
            yield f"{place}: there is no metric {metric}"
            continue
        known |= told[metric]
        for name in set(LABEL.findall(selector)) - told[metric] - SCRAPE_LABELS:
            yield f"{place}: {metric} has no label {name}"
    for name in summed_by - known:
        yield f"{place}: nothing has the label {name}"


def recording_rules(queries):
    values = {"$__rate_interval": "5m", "$instance": ".*", "$job": "flow-proxy"}
    rules = []
    for number, (_, query) in enumerate(queries):
        for variable, value in values.items():
            query = query.replace(variable, value)
        rules.append({"record": f"dashboard:query:{number}", "expr": query})
    return rules


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
