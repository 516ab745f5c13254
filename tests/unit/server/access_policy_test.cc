// The policy file (SECURITY R1, R5, R9): what it says, whom it believes, and what is refused.
#include "server/access/access_policy.h"

#include <gtest/gtest.h>

#include "server/service/check_policy.h"
#include "tests/support/status_matchers.h"

namespace uniquanf::server {
namespace {

using absl::StatusCode;
using nlohmann::json;
using ::testing::HasSubstr;

const char kPolicy[] = R"({
  "version": 1,
  "certificates": {
    "trust_domain": "example.org",
    "names": {"bob.example.org": "tenant/b/user/bob", "ops": "operator/ops"},
    "gateways": ["envoy.example.org", "spiffe://example.org/gateway/g"]
  },
  "tokens": [
    {"issuer": "https://idp", "audience": "uniquanf", "keys": "/keys.json",
     "roles": {"admins": "operator", "readers": "viewer"}},
    {"issuer": "https://idp", "audience": "uniquanf-workers", "keys": "/keys.json", "kind": "worker"}
  ],
  "bindings": [
    {"principals": ["tenant/*/user/*"], "role": "user"},
    {"principals": ["tenant/a/user/auditor"], "role": "viewer", "tenants": ["b"]},
    {"principals": ["operator/*"], "role": "operator"},
    {"principals": ["worker/*"], "role": "worker"}
  ],
  "tenants": {"a": {"max_priority": 50, "max_queued_jobs": 7, "max_creates_per_second": 0.5,
                    "data": {"read": ["s3://models/a"], "model": ["file:///srv/a/"], "output": ["s3://out/a"]}},
              "*": {"max_priority": 5}}
})";

class AccessPolicyTest : public ::testing::Test {
 protected:
  AccessPolicyTest() : policy_(*AccessPolicy::Parse(kPolicy)) {}

  absl::StatusOr<Identity> Certificate(std::vector<std::string> uris,
                                       std::vector<std::string> dns = {},
                                       const std::string& common_name = "") const {
    return policy_.FromCertificate({std::move(uris), std::move(dns), common_name});
  }
  absl::StatusOr<Identity> Claims(const json& more) const {
    json claims = {{"iss", "https://idp"},
                   {"aud", "uniquanf"},
                   {"sub", "alice"},
                   {"tenant", "a"},
                   {"exp", 1000}};
    claims.update(more);
    const auto issuer = policy_.IssuerOf(claims);
    if (!issuer.ok()) return issuer.status();
    return policy_.FromClaims(**issuer, claims, absl::FromUnixSeconds(900));
  }
  absl::StatusOr<Identity> ClaimsAt(int64_t now, const json& more) const {
    json claims = {{"sub", "alice"}, {"tenant", "a"}, {"exp", 1000}};
    claims.update(more);
    return policy_.FromClaims(policy_.issuers()[0], claims, absl::FromUnixSeconds(now));
  }

  const AccessPolicy policy_;
};

TEST_F(AccessPolicyTest, ASpiffeIdIsTheNameAndGoesBeforeEverythingElse) {
  EXPECT_EQ(Certificate({"spiffe://example.org/tenant/a/user/alice"})->name, "tenant/a/user/alice");
  EXPECT_EQ(Certificate({"spiffe://example.org/worker/w1"}, {"bob.example.org"})->name,
            "worker/w1");
  EXPECT_EQ(Certificate({"spiffe://example.org/operator/o"})->name, "operator/o");
  const auto unknown = FailsWith(StatusCode::kUnauthenticated, "UNKNOWN_CERTIFICATE");
  for (const char* id :
       {"spiffe://other.org/tenant/a/user/alice", "spiffe://example.org.evil/operator/o",
        "spiffe://example.org/", "spiffe://example.org/tenant/a", "spiffe://example.org/operator/",
        "spiffe://example.org/operator/a/b", "spiffe://example.org/tenant/A/user/x",
        "spiffe://example.org/tenant/a/user/x*", "spiffe://example.org//operator/o"}) {
    EXPECT_THAT(Certificate({id}, {"bob.example.org"}, "ops"), unknown) << id;
  }
  EXPECT_THAT(Certificate({"spiffe://example.org/operator/o", "spiffe://example.org/worker/w"}),
              unknown);
}

TEST_F(AccessPolicyTest, OtherCertificatesAreWhomTheTableSays) {
  EXPECT_EQ(Certificate({}, {"bob.example.org"}, "ops")->name, "tenant/b/user/bob");
  EXPECT_EQ(Certificate({}, {"elsewhere"}, "ops")->name, "operator/ops");
  EXPECT_EQ(Certificate({"https://x"}, {}, "ops")->name, "operator/ops");
  const auto unknown = FailsWith(StatusCode::kUnauthenticated, "UNKNOWN_CERTIFICATE");
  EXPECT_THAT(Certificate({}, {"alice"}, "nobody"), unknown);
  EXPECT_THAT(Certificate({}, {"ops", "bob.example.org"}), unknown) << "names of two";
}

// CVE-2018-16886: a gateway's own certificate was a user.
TEST_F(AccessPolicyTest, AGatewayIsNobodyWhateverElseItsCertificateSays) {
  const auto gateway = FailsWith(StatusCode::kUnauthenticated, "GATEWAY_CERTIFICATE");
  EXPECT_THAT(Certificate({"spiffe://example.org/operator/o"}, {"envoy.example.org"}), gateway);
  EXPECT_THAT(Certificate({}, {"bob.example.org"}, "envoy.example.org"), gateway);
  EXPECT_THAT(Certificate({"spiffe://example.org/gateway/g"}), gateway);
}

TEST_F(AccessPolicyTest, ClaimsBecomeNameTenantsAndRoles) {
  auto alice = Claims({{"roles", {"readers", "unknown"}}});
  ASSERT_THAT(alice, IsOk());
  EXPECT_EQ(alice->name, "tenant/a/user/alice");
  EXPECT_EQ(alice->roles, std::set<Role>{Role::kViewer});
  const auto two = Claims({{"tenant", {"a", "b"}}});
  ASSERT_THAT(two, IsOk());
  EXPECT_EQ(two->name, "user/alice");
  EXPECT_EQ(two->tenants, (std::set<std::string>{"a", "b"}));
  const auto worker =
      Claims({{"aud", {"x", "uniquanf-workers"}}, {"sub", "w1"}, {"roles", "admins"}});
  ASSERT_THAT(worker, IsOk());
  EXPECT_EQ(worker->name, "worker/w1");
  EXPECT_TRUE(worker->roles.empty() && worker->tenants.empty());
}

TEST_F(AccessPolicyTest, ClaimsOfOthersAndWrongOnesAreRefused) {
  EXPECT_THAT(Claims({{"iss", "https://idp/"}}),
              FailsWith(StatusCode::kUnauthenticated, "UNKNOWN_ISSUER"));
  EXPECT_THAT(Claims({{"aud", "other"}}),
              FailsWith(StatusCode::kUnauthenticated, "WRONG_AUDIENCE"));
  EXPECT_THAT(Claims({{"aud", json::array()}}),
              FailsWith(StatusCode::kUnauthenticated, "WRONG_AUDIENCE"));
  const auto bad = FailsWith(StatusCode::kUnauthenticated, "INVALID_TOKEN");
  for (const json& more :
       {json{{"iss", 7}}, json{{"aud", 7}}, json{{"aud", {7}}}, json{{"sub", ""}}, json{{"sub", 7}},
        json{{"sub", "a/user/b"}}, json{{"sub", "a b"}}, json{{"sub", "*"}}, json{{"tenant", "A"}},
        json{{"tenant", ""}}, json{{"tenant", "a/b"}}, json{{"tenant", 7}},
        json{{"tenant", {"a", "*"}}}, json{{"roles", {{"a", 1}}}}, json{{"exp", "1000"}},
        json{{"exp", nullptr}}, json{{"exp", 1e300}}, json{{"nbf", "x"}}}) {
    EXPECT_THAT(Claims(more), bad) << more.dump();
  }
}

// R1: 60 s of leeway.
TEST_F(AccessPolicyTest, T7_ATokensTimesAreKeptWithAMinuteOfLeeway) {
  EXPECT_THAT(ClaimsAt(1060, json::object()), IsOk());
  EXPECT_THAT(ClaimsAt(1061, json::object()),
              FailsWith(StatusCode::kUnauthenticated, "TOKEN_EXPIRED"));
  EXPECT_THAT(ClaimsAt(900, {{"nbf", 960}}), IsOk());
  EXPECT_THAT(ClaimsAt(900, {{"nbf", 961}}),
              FailsWith(StatusCode::kUnauthenticated, "TOKEN_NOT_YET_VALID"));
  EXPECT_EQ(ClaimsAt(900, json::object())->expires, absl::FromUnixSeconds(1060));
}

TEST_F(AccessPolicyTest, BindingsGiveRolesOverTenantsAndNothingElseDoes) {
  const Principal alice = policy_.Resolve(*IdentityFromName("tenant/a/user/alice"));
  EXPECT_TRUE(AccessTo(alice, Verb::kDelete).allowed.Has("a"));
  EXPECT_FALSE(AccessTo(alice, Verb::kRead).visible.Has("b"));
  EXPECT_TRUE(ScopeOf(alice, Verb::kRead, Resource::kServer).empty());
  const Principal auditor = policy_.Resolve(*IdentityFromName("tenant/a/user/auditor"));
  EXPECT_TRUE(AccessTo(auditor, Verb::kCancel).visible.Has("b"));
  EXPECT_FALSE(AccessTo(auditor, Verb::kCancel).allowed.Has("b"));
  const Principal ops = policy_.Resolve(*IdentityFromName("operator/o"));
  EXPECT_TRUE(AccessTo(ops, Verb::kCancel).allowed.all);
  EXPECT_TRUE(AccessTo(ops, Verb::kCreate).allowed.empty());
  const Principal nobody = policy_.Resolve(*IdentityFromName("user/alice"));
  EXPECT_TRUE(nobody.grants.empty());
  EXPECT_EQ(policy_.RulesOf("a").max_priority, 50);
  EXPECT_EQ(policy_.RulesOf("other").max_priority, 5);
}

TEST_F(AccessPolicyTest, APatternNeverReachesAcrossASlash) {
  EXPECT_TRUE(PrincipalMatches("tenant/*/user/a?", "tenant/x/user/ab"));
  EXPECT_FALSE(PrincipalMatches("tenant/*", "tenant/x/user/ab"));
  EXPECT_FALSE(PrincipalMatches("*", "operator/o"));
  EXPECT_FALSE(PrincipalMatches("operator/*", "worker/w"));
}

TEST_F(AccessPolicyTest, BadFilesAreRefusedWithTheMemberNamed) {
  const std::pair<const char*, json> cases[] = {
      {"version", {{"version", 2}}},
      {"version", {{"version", nullptr}}},
      {"trust_domain", {{"certificates", {{"trust_domain", "a/b"}}}}},
      {"names", {{"certificates", {{"names", {{"x", "nobody"}}}}}}},
      {"unknown", {{"unknown", 1}}},
      {"tokens[0].keys",
       {{"tokens", {{{"issuer", "i"}, {"audience", "a"}, {"keys", "http://x"}}}}}},
      {"audience", {{"tokens", {{{"issuer", "i"}, {"keys", "/k"}}}}}},
      {"tokens[0].kind",
       {{"tokens", {{{"issuer", "i"}, {"audience", "a"}, {"keys", "/k"}, {"kind", "root"}}}}}},
      {"roles",
       {{"tokens",
         {{{"issuer", "i"}, {"audience", "a"}, {"keys", "/k"}, {"roles", {{"x", "worker"}}}}}}}},
      {"bindings[0].role", {{"bindings", {{{"principals", {"user/*"}}, {"role", "root"}}}}}},
      {"bindings[0].principals", {{"bindings", {{{"principals", {"*"}}, {"role", "user"}}}}}},
      {"worker", {{"bindings", {{{"principals", {"user/*"}}, {"role", "worker"}}}}}},
      {"worker", {{"bindings", {{{"principals", {"worker/*"}}, {"role", "operator"}}}}}},
      {"bindings[0].tenants",
       {{"bindings", {{{"principals", {"user/*"}}, {"role", "user"}, {"tenants", {"a b"}}}}}}},
      {"tenants", {{"tenants", {{"a b", json::object()}}}}},
      {"max_priority", {{"tenants", {{"a", {{"max_priority", "high"}}}}}}},
      {"max_queued_jobs", {{"tenants", {{"a", {{"max_queued_jobs", 0}}}}}}},
      {"max_creates_per_second", {{"tenants", {{"a", {{"max_creates_per_second", -1}}}}}}},
      {"tenants.a.data", {{"tenants", {{"a", {{"data", {{"read", {"/srv"}}}}}}}}}},
      {"tenants.a.data", {{"tenants", {{"a", {{"data", {{"output", {"file:///a/../b"}}}}}}}}}},
      {"tenants.a.data.credentials",
       {{"tenants", {{"a", {{"data", {{"credentials", "AKIAIOSFODNN7EXAMPLE"}}}}}}}}},
      {"workers", {{"workers", {{"a/b", json::object()}}}}},
      {"workers.w.devices", {{"workers", {{"w", {{"devices", {"abacus"}}}}}}}},
      {"workers.w.labels", {{"workers", {{"w", {{"labels", {{"zone", 1}}}}}}}}},
      {"workers.w.max_slots", {{"workers", {{"w", {{"max_slots", -1}}}}}}},
      {"workers.w.signing_keys[0]", {{"workers", {{"w", {{"signing_keys", {"c2hvcnQ="}}}}}}}},
      {"write", {{"tenants", {{"a", {{"data", {{"write", json::array()}}}}}}}}},
  };
  for (const auto& [member, change] : cases) {
    json policy = json::parse(kPolicy);
    policy.update(change);
    EXPECT_THAT(AccessPolicy::Parse(policy.dump()),
                FailsWith(StatusCode::kInvalidArgument, "INVALID_POLICY", HasSubstr(member)));
  }
  EXPECT_THAT(AccessPolicy::Parse("{\"version\": 1}"),
              FailsWith(StatusCode::kInvalidArgument, "INVALID_POLICY", HasSubstr("nobody")));
}

// R11, R12: by the text, at submit.
TEST_F(AccessPolicyTest, T3_DataLiesBelowATenantsPrefixesOrNowhere) {
  const TenantRules& a = policy_.RulesOf("a");
  EXPECT_EQ(a.max_queued_jobs, 7);
  EXPECT_EQ(a.max_tasks_per_job, 20'000);
  EXPECT_EQ(a.max_creates_per_second, 0.5);
  const DataRules rules = {"file:///data/objects/tenants/a",
                           {"file:///data/objects", "file:///data"}};
  const auto check = [&](DataPurpose purpose, const std::string& uri) {
    return CheckDataAllowed(rules, a.DataOf(purpose), purpose, "a", "some_uri", uri);
  };
  for (const char* uri : {"s3://models/a", "s3://models/a/", "s3://models/a/b/c", "file:///srv/a",
                          "file:///srv/a/tiny", "file:///data/objects/tenants/a/uploads/x"}) {
    EXPECT_THAT(check(DataPurpose::kModel, uri), IsOk()) << uri;
  }
  EXPECT_THAT(check(DataPurpose::kOutput, "s3://out/a/x"), IsOk());
  EXPECT_THAT(check(DataPurpose::kCalibration, "s3://models/a/tokens"), IsOk());
  const auto refused =
      FailsWith(StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED", HasSubstr("uri"));
  for (const char* uri : {"s3://models/ab", "s3://models", "s3://model/a", "s3://Models/a",
                          "file:///srv/ab", "file:///srv", "file:///", "file:///etc",
                          "file:///proc/self/root/srv/a", "file:///data/objects/tenants/b/x",
                          "file:///data/objects/work/uid", "file:///data/state.sqlite", "s3://"}) {
    EXPECT_THAT(check(DataPurpose::kModel, uri), refused) << uri;
  }
  EXPECT_THAT(check(DataPurpose::kCalibration, "file:///srv/a/x"), refused) << "for models alone";
  EXPECT_THAT(check(DataPurpose::kOutput, "s3://models/a/x"), refused);
  EXPECT_THAT(check(DataPurpose::kOutput, "file:///data/objects/tenants/a/artifacts/x"), refused);
  for (const char* uri :
       {"file:///srv/a/../b", "file:///srv/a/..", "file:///srv/a/./x", "file:///srv/a//x",
        "file:////srv/a", "file:///srv/a/%2e%2e/b", "s3://models/a/..", "s3://models/a?x", "srv/a",
        "file:///srv/a\n", "http://models/a", ""}) {
    EXPECT_THAT(check(DataPurpose::kModel, uri),
                FailsWith(StatusCode::kInvalidArgument, "INVALID_SPEC"))
        << uri;
  }
  // Prefixes that reach the server's own place do not open it.
  EXPECT_THAT(CheckDataAllowed(rules, {"file:///"}, DataPurpose::kModel, "a", "model_uri",
                               "file:///data/objects/tenants/b/x"),
              refused);
  EXPECT_THAT(
      CheckDataAllowed(rules, {"file:///"}, DataPurpose::kModel, "a", "model_uri", "file:///etc"),
      IsOk());
  EXPECT_TRUE(policy_.RulesOf("new").DataOf(DataPurpose::kModel).empty());
}

// R13: a worker opens a tenant's remote prefixes with the tenant's credentials, its own place with
// its own.
TEST_F(AccessPolicyTest, GrantsAreThePrefixesByPurposeWithTheTenantsCredentials) {
  json policy = json::parse(kPolicy);
  policy["tenants"]["a"]["data"]["credentials"] = "file:a";
  const auto parsed = AccessPolicy::Parse(policy.dump());
  ASSERT_THAT(parsed, IsOk());
  const TenantRules& a = parsed->RulesOf("a");
  const std::vector<DataGrant> grants =
      GrantsOf({"s3://root/tenants/a", {}}, a.data, a.credentials);
  ASSERT_EQ(grants.size(), 4u);
  EXPECT_EQ(grants[0].uri_prefix, "s3://root/tenants/a");
  EXPECT_EQ(grants[0].credentials, "");
  EXPECT_EQ(grants[0].purposes.size(), kNumDataPurposes);
  EXPECT_EQ(grants[1].uri_prefix, "file:///srv/a/");
  EXPECT_EQ(grants[1].credentials, "");
  EXPECT_EQ(grants[1].purposes, std::vector<DataPurpose>{DataPurpose::kModel});
  EXPECT_EQ(grants[2].uri_prefix, "s3://models/a");
  EXPECT_EQ(grants[2].credentials, "file:a");
  EXPECT_EQ(grants[2].purposes.size(), 3u);
  EXPECT_EQ(grants[3].purposes, std::vector<DataPurpose>{DataPurpose::kOutput});
}

// R18.
TEST_F(AccessPolicyTest, AWorkersRulesAreItsOwnOrThoseOfTheOthers) {
  json policy = json::parse(kPolicy);
  const std::string key = SigningKey::Generate().verifying_key().Base64();
  policy["workers"] = {{"w", {{"max_slots", 2}, {"signing_keys", {key}}}},
                       {"*", {{"devices", {"cpu"}}}}};
  const auto parsed = AccessPolicy::Parse(policy.dump());
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->RulesOfWorker("worker/w").max_slots, 2);
  EXPECT_EQ(parsed->RulesOfWorker("worker/w").signing_keys[0].Base64(), key);
  EXPECT_TRUE(parsed->RulesOfWorker("worker/w").devices.empty());
  EXPECT_EQ(parsed->RulesOfWorker("worker/v").devices.count("cpu"), 1u);
  EXPECT_TRUE(policy_.RulesOfWorker("worker/v").devices.empty());
}

TEST_F(AccessPolicyTest, CheckPolicyExplainsWhatTheServerDecides) {
  const auto decide = [&](const char* principal, const char* method, const char* resource) {
    return DecidePolicy(policy_, principal, method, resource);
  };
  const auto yes = decide("tenant/a/user/alice", "CancelJob", "tenants/a/jobs/j");
  ASSERT_THAT(yes, IsOk());
  EXPECT_TRUE(yes->allowed);
  EXPECT_THAT(yes->explanation, HasSubstr("role user of bindings[0]"));
  const auto foreign = decide("tenant/a/user/alice", "GetJob", "tenants/b/jobs/j");
  EXPECT_FALSE(foreign->allowed);
  EXPECT_THAT(foreign->explanation, HasSubstr("JOB_NOT_FOUND"));
  EXPECT_THAT(decide("tenant/a/user/auditor", "CancelJob", "tenants/b")->explanation,
              HasSubstr("PERMISSION_DENIED"));
  EXPECT_THAT(decide("tenant/a/user/alice", "CreateJob", "tenants/b")->explanation,
              HasSubstr("TENANT_NOT_ALLOWED"));
  EXPECT_TRUE(decide("worker/w", "Synchronize", "workers/w")->allowed);
  EXPECT_FALSE(decide("worker/w", "GetJob", "tenants/a")->allowed);
  EXPECT_TRUE(decide("operator/o", "GetServerInfo", "server")->allowed);
  EXPECT_FALSE(decide("user/nobody", "GetJob", "tenants/a")->allowed);
  for (const auto& [principal, method, resource] : {std::tuple{"nobody", "GetJob", "tenants/a"},
                                                    {"operator/o", "Get", "tenants/a"},
                                                    {"operator/o", "GetJob", "server"},
                                                    {"operator/o", "DrainWorker", "tenants/a"}}) {
    EXPECT_EQ(decide(principal, method, resource).status().code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace uniquanf::server
