// `uniquanf-batch verify`: every digest and every tensor of an artifact.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/artifact/artifact_reader.h"
#include "common/artifact/manifest.h"
#include "common/artifact/signature.h"
#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/format_bytes.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"

namespace uniquanf::batch {
namespace {

absl::StatusOr<std::string> SignerOf(ObjectStore* store, const std::vector<VerifyingKey>& trusted) {
  UQ_ASSIGN_OR_RETURN(const std::string manifest, store->Read(kManifestKey, kMaxManifestBytes));
  UQ_ASSIGN_OR_RETURN(const ManifestSignature signature,
                      CheckSignature(store, Sha256Hex(manifest), trusted));
  return signature.signed_by;
}

// Of the artifact, not of the store.
bool IsSignatureProblem(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  return reason == "NOT_SIGNED" || reason == "INVALID_SIGNATURE" || reason == "UNTRUSTED_SIGNATURE";
}

}  // namespace

int Verify(const std::vector<std::string>& arguments) {
  std::string artifact, trust;
  bool json = false;
  FlagSet flag_set("uniquanf-batch verify ARTIFACT [flags]",
                   "Checks every file's digest and every tensor of an artifact.");
  flag_set.Positional("ARTIFACT", true, &artifact, "the artifact's directory");
  flag_set.String("trust", "FILE", &trust,
                  "PEM public keys (openssl pkey -pubout) of the workers that are trusted: one of "
                  "them must have signed the artifact");
  flag_set.Bool("json", &json, "print JSON");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  std::vector<VerifyingKey> trusted;
  if (!trust.empty()) {
    auto keys = VerifyingKey::FromPemFile(trust);
    if (!keys.ok()) return Fail(Annotate(keys.status(), "--trust"), json);
    trusted = *std::move(keys);
  }
  const auto store = OpenObjectStore(AbsoluteUri(artifact));
  if (!store.ok()) return Fail(store.status(), json);
  TerminalProgress progress(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock());
  auto report = VerifyArtifact(*store, [&progress](uint64_t done, uint64_t total) {
    ProgressRow row;
    row.label = "verify";
    row.fraction = total > 0 ? static_cast<double>(done) / total : 0;
    progress.Update({row});
  });
  progress.Finish();
  if (!report.ok()) return Fail(report.status(), json);
  std::string signed_by;
  if (!trust.empty()) {
    const absl::StatusOr<std::string> signer = SignerOf(store->get(), trusted);
    if (!signer.ok() && !IsSignatureProblem(signer.status())) return Fail(signer.status(), json);
    if (signer.ok()) {
      signed_by = *signer;
    } else {
      report->problems.emplace_back(signer.status().message());
    }
  }
  if (json) {
    nlohmann::ordered_json out;
    out["ok"] = report->problems.empty();
    out["num_files"] = report->num_files;
    out["num_bytes"] = report->num_bytes;
    out["num_modules"] = report->num_modules;
    out["problems"] = report->problems;
    if (!trust.empty()) out["signed_by"] = signed_by;
    PrintJsonLine(out);
  } else {
    for (const std::string& problem : report->problems)
      std::printf("problem: %s\n", PrintableText(problem).c_str());
    std::printf("%s: %lld files, %s, %lld modules, %zu problems\n",
                report->problems.empty() ? "verified" : "DAMAGED",
                static_cast<long long>(report->num_files), FormatBytes(report->num_bytes).c_str(),
                static_cast<long long>(report->num_modules), report->problems.size());
    if (!signed_by.empty()) std::printf("signed by %s\n", PrintableText(signed_by).c_str());
  }
  return report->problems.empty() ? kOk : kFailed;
}

}  // namespace uniquanf::batch
