"""Prints the dashboard's expressions as recording rules, with its variables filled in, so that promtool checks their syntax.
Refuses panels without targets, panels that overlap, and expressions that no variable narrows."""
import json
import sys


def main(path):
    with open(path, encoding="utf-8") as file:
        dashboard = json.load(file)
    places = set()
    expressions = []
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        grid = panel["gridPos"]
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not cells & places, f"{panel['title']} overlaps another panel"
        places |= cells
        assert panel.get("targets"), f"{panel['title']} has no target"
        for target in panel["targets"]:
            assert 'namespace=~"$namespace"' in target["expr"], f"{panel['title']}: {target['expr']} shows all namespaces"
            expressions.append(target["expr"].replace("$namespace", ".*").replace("$instance", ".*"))
    rules = [{"record": f"dashboard:expression{i}", "expr": e} for i, e in enumerate(expressions)]
    print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))


main(sys.argv[1])
