#include "server/access/access_control.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

constexpr size_t kMaxPolicyBytes = 4 << 20;
constexpr absl::Duration kRecheckPeriod = absl::Seconds(50);  // once a minute at least

absl::Status Nobody(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kUnauthenticated, reason, message);
}

absl::StatusOr<AccessPolicy> ReadPolicy(const std::string& path, std::string* text) {
  absl::StatusOr<std::string> read = ReadSmallFile(path, kMaxPolicyBytes);
  if (!read.ok()) {
    return InvalidInput("INVALID_POLICY", absl::StrCat("cannot read the policy file \"", path,
                                                       "\": ", read.status().message()));
  }
  *text = *std::move(read);
  absl::StatusOr<AccessPolicy> policy = AccessPolicy::Parse(*text);
  if (!policy.ok()) {
    return Annotate(policy.status(), absl::StrCat("the policy file \"", path, "\""));
  }
  return policy;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Start(AccessOptions options,
                                                                    const Clock* clock) {
  std::unique_ptr<AccessControl> control(new AccessControl(std::move(options), clock));
  std::string text;
  UQ_ASSIGN_OR_RETURN(AccessPolicy policy, ReadPolicy(control->options_.policy_file, &text));
  control->Take(std::move(policy), std::move(text));
  control->thread_ = std::thread([raw = control.get()] { raw->Run(); });
  return control;
}

AccessControl::~AccessControl() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<Principal> AccessControl::Authenticate(
    const PeerNames& certificate, const std::vector<std::string>& authorization) const {
  const std::shared_ptr<const InUse> in_use = this->in_use();
  const AccessPolicy& policy = in_use->policy;
  if (authorization.size() > 1) {
    return Nobody("INVALID_TOKEN", "there is more than one authorization header");
  }
  if (authorization.empty()) {
    if (certificate.empty()) {
      return Nobody("NO_IDENTITY",
                    "this server wants to know who calls: give a client certificate "
                    "(--tls-cert, --tls-key) or a token (--token-file)");
    }
    UQ_ASSIGN_OR_RETURN(Identity identity, policy.FromCertificate(certificate));
    return policy.Resolve(std::move(identity));
  }
  // The scheme's case does not matter (RFC 9110, section 11.1).
  constexpr absl::string_view kScheme = "bearer ";
  absl::string_view text = authorization[0];
  if (!absl::StartsWithIgnoreCase(text, kScheme)) {
    return Nobody("INVALID_TOKEN", "the authorization header holds no bearer token");
  }
  text.remove_prefix(kScheme.size());
  UQ_ASSIGN_OR_RETURN(const Token token, ParseToken(text));
  UQ_ASSIGN_OR_RETURN(const TokenIssuer* issuer, policy.IssuerOf(token.claims));
  const absl::Status verified = in_use->keys.at(issuer->keys)->Verify(token, clock_->Monotonic());
  if (absl::IsUnavailable(verified)) {
    absl::MutexLock lock(&mutex_);
    keys_wanted_ = true;
  }
  UQ_RETURN_IF_ERROR(verified);
  UQ_ASSIGN_OR_RETURN(Identity identity, policy.FromClaims(*issuer, token.claims, clock_->Now()));
  return policy.Resolve(std::move(identity));
}

absl::StatusOr<Principal> AccessControl::Again(const Principal& principal) const {
  if (clock_->Now() > principal.expires) {
    return Nobody("TOKEN_EXPIRED", "the token has expired; get a fresh one");
  }
  const std::shared_ptr<const InUse> in_use = this->in_use();
  if (!in_use->policy.Believes(principal)) {
    return Nobody("UNKNOWN_ISSUER", "the token's issuer is not in the server's policy any more");
  }
  return in_use->policy.Resolve(principal);
}

std::shared_ptr<const AccessControl::InUse> AccessControl::in_use() const {
  absl::MutexLock lock(&mutex_);
  return in_use_;
}

std::shared_ptr<const AccessPolicy> AccessControl::policy() const {
  const std::shared_ptr<const InUse> in_use = this->in_use();
  return {in_use, &in_use->policy};
}

void AccessControl::ReloadNow() {
  absl::MutexLock lock(&mutex_);
  look_now_ = true;
}

void AccessControl::set_on_recheck(std::function<void()> recheck) {
  absl::MutexLock lock(&recheck_mutex_);
  recheck_ = std::move(recheck);
}

AccessControl::Health AccessControl::health() const {
  Health health;
  const std::shared_ptr<const InUse> in_use = this->in_use();
  for (const auto& [location, source] : in_use->keys) {
    if (!source->last().ok()) ++health.num_key_failures;
  }
  absl::MutexLock lock(&mutex_);
  health.policy_rejected = policy_rejected_;
  return health;
}

void AccessControl::Note(NoteLevel level, const std::string& text) const {
  if (options_.note != nullptr) options_.note(level, text);
}

void AccessControl::Take(AccessPolicy policy, std::string text) {
  auto fresh = std::make_shared<InUse>(InUse{std::move(policy), {}});
  absl::MutexLock lock(&mutex_);
  for (const TokenIssuer& issuer : fresh->policy.issuers()) {
    std::shared_ptr<KeySource>& source = fresh->keys[issuer.keys];
    if (in_use_ != nullptr) {
      const auto known = in_use_->keys.find(issuer.keys);
      if (known != in_use_->keys.end()) source = known->second;
    }
    if (source == nullptr) source = std::make_shared<KeySource>(issuer.keys);
  }
  in_use_ = std::move(fresh);
  text_ = std::move(text);
}

void AccessControl::LookAtPolicy() {
  std::string text;
  absl::StatusOr<AccessPolicy> policy = ReadPolicy(options_.policy_file, &text);
  const std::string problem = policy.ok() ? "" : std::string(policy.status().message());
  {
    absl::MutexLock lock(&mutex_);
    policy_rejected_ = !policy.ok();
  }
  if (problem != told_ && !problem.empty()) {
    Note(NoteLevel::kWarning,
         absl::StrCat(problem, "; the policy that was read before stays in use"));
  }
  told_ = problem;
  if (!policy.ok() || text == text_) return;
  Take(*std::move(policy), std::move(text));
  Note(NoteLevel::kInfo, "the policy file has changed and is in use");
}

void AccessControl::FetchDueKeys(bool all) {
  const std::shared_ptr<const InUse> in_use = this->in_use();
  for (const auto& [location, source] : in_use->keys) {
    const absl::Duration now = clock_->Monotonic();
    if (!all && source->due() > now) continue;
    const absl::Status fetched = source->Fetch(options_.fetch, now);
    std::string& told = keys_told_[location];
    const std::string problem(fetched.message());
    if (problem != told && !problem.empty()) {
      Note(NoteLevel::kWarning, absl::StrCat(problem, "; keys that were read before stay in use"));
    }
    told = problem;
  }
}

void AccessControl::Run() {
  absl::Duration rechecked_at = clock_->Monotonic();
  std::shared_ptr<const InUse> rechecked = in_use();
  bool now = false;
  FetchDueKeys(/*all=*/true);
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      const auto woken = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stop_ || look_now_ || keys_wanted_;
      };
      mutex_.AwaitWithTimeout(absl::Condition(&woken), options_.period);
      if (stop_) return;
      now = look_now_;
      look_now_ = keys_wanted_ = false;
    }
    LookAtPolicy();
    FetchDueKeys(now);
    const bool changed = rechecked != in_use();
    if (!changed && clock_->Monotonic() - rechecked_at < kRecheckPeriod) continue;
    rechecked = in_use();
    rechecked_at = clock_->Monotonic();
    absl::MutexLock lock(&recheck_mutex_);
    if (recheck_ != nullptr) recheck_();
  }
}

}  // namespace uniquanf::server
