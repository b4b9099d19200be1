"""Does with a chart what helm would: chart.py CHART [KUBECONFIG], one JSON request a line, one JSON answer a line.

{"do": "lint", "values": {}}                  the messages
{"do": "render", "values": {}}                the manifests, by file; as release "kb" of namespace "orders"
{"do": "render-packed", "values": {}}         likewise, of the chart's archive
{"do": "install" | "upgrade", "values": {}, "namespace": ""} | {"do": "uninstall", "namespace": ""}    on the cluster of KUBECONFIG
An answer is {"ok": …} or {"error": "what helm says"}.
"""

import json
import sys
import tempfile

import helm_python as helm

RELEASE = "kb"


def config(request):
    return helm.Config(kubeconfig_path=sys.argv[2], namespace=request["namespace"])


def answer(chart, request):
    values, action = request.get("values"), request["do"]
    if action == "lint":
        return helm.lint(chart, values=values)
    if action.startswith("render"):
        with tempfile.TemporaryDirectory() as folder:
            path = helm.package(chart, destination=folder) if action == "render-packed" else chart
            loaded = helm.Chart.load(path)
            loaded.validate_schema(values)
            return loaded.render(values, name=RELEASE, namespace="orders")
    if action == "uninstall":
        return config(request).uninstall(RELEASE)
    return getattr(config(request), action)(chart, RELEASE, values, namespace=request["namespace"])


for line in sys.stdin:
    try:
        said = {"ok": answer(sys.argv[1], json.loads(line))}
    except helm.HelmError as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)
