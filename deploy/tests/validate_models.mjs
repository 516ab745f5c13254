// Checks objects (a JSON array on stdin) with npm's kubernetes-models, which must lie in node_modules beside this file: types
// and required fields, not unknown ones. One line a violation on stdout; every other exit code than 0 is a fault of the tool.
import { readFileSync } from "node:fs";

const packages = {
  "keda.sh": "@kubernetes-models/keda",
  "cert-manager.io": "@kubernetes-models/cert-manager",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const where = `${object.kind} ${object.metadata?.name}`;
  const group = object.apiVersion.split("/")[0];
  const models = await import(`${packages[group] ?? "kubernetes-models"}/${object.apiVersion}`);
  if (!models[object.kind]) {
    console.log(`${where}: there is no model of ${object.apiVersion}`);
    continue;
  }
  try {
    new models[object.kind](object).validate();
  } catch (error) {
    console.log(`${where}: ${error.message}`);
  }
}
