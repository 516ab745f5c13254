// Credentials chain and configuration, against files and scripted metadata and token services.
#include "common/object_store/s3_credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/object_store/s3_config.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/common/s3_scripted_server.h"

namespace uniquanf {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

using Settings = std::map<std::string, std::string>;

Environment Env(Settings settings) {
  return [settings = std::move(settings)](absl::string_view name) {
    const auto it = settings.find(std::string(name));
    return it == settings.end() ? std::string() : it->second;
  };
}

class ManualClock : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Duration Monotonic() const override { return now - absl::UnixEpoch(); }
  absl::Time now = absl::FromUnixSeconds(1'800'000'000);
};

class S3CredentialsTest : public ::testing::Test {
 protected:
  std::string WriteFile(const std::string& name, const std::string& text) {
    std::ofstream(dir_.File(name)) << text;
    return dir_.File(name);
  }
  // Without anything of the machine that the test runs on.
  absl::StatusOr<AwsCredentials> Get(Settings settings) {
    settings.emplace("HOME", dir_.File("home"));
    settings.emplace("AWS_EC2_METADATA_DISABLED", "true");
    return NewDefaultCredentials(Env(settings), std::make_shared<HttpTransport>(), clock_)->Get();
  }

  TempDir dir_;
  ManualClock clock_;
};

TEST_F(S3CredentialsTest, NothingConfiguredSaysWhatToSet) {
  EXPECT_THAT(Get({}), FailsWith(absl::StatusCode::kFailedPrecondition, "NO_CREDENTIALS",
                                 HasSubstr("AWS_ACCESS_KEY_ID")));
}

TEST_F(S3CredentialsTest, AnonymousIsAskedForExplicitly) {
  ASSERT_OK_AND_ASSIGN(const AwsCredentials credentials,
                       Get({{"UNIQUANF_S3_ANONYMOUS", "true"}, {"AWS_ACCESS_KEY_ID", "unused"}}));
  EXPECT_TRUE(credentials.anonymous());
}

TEST_F(S3CredentialsTest, EnvironmentComesBeforeFiles) {
  const std::string file =
      WriteFile("credentials", "[default]\naws_access_key_id = FILE\naws_secret_access_key = f\n");
  ASSERT_OK_AND_ASSIGN(const AwsCredentials credentials,
                       Get({{"AWS_ACCESS_KEY_ID", "ENV"},
                            {"AWS_SECRET_ACCESS_KEY", "s"},
                            {"AWS_SESSION_TOKEN", "t"},
                            {"AWS_SHARED_CREDENTIALS_FILE", file}}));
  EXPECT_EQ(credentials.access_key_id, "ENV");
  EXPECT_EQ(credentials.session_token, "t");
}

TEST_F(S3CredentialsTest, HalfAPairIsRefusedWithoutShowingIt) {
  const auto result = Get({{"AWS_SECRET_ACCESS_KEY", "half-a-secret"}});
  EXPECT_THAT(result, FailsWith(absl::StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS",
                                Not(HasSubstr("half-a-secret"))));
}

TEST_F(S3CredentialsTest, ProfilesComeFromBothFiles) {
  const std::string credentials_file =
      WriteFile("credentials",
                "# comment\n[default]\naws_access_key_id=D\naws_secret_access_key=d\n"
                "[other]\n  aws_access_key_id = NESTED\naws_access_key_id = O \n"
                "aws_secret_access_key = o/+==\naws_session_token = ot\n");
  const std::string config_file = WriteFile(
      "config", "[profile other]\nregion = eu-west-1\naws_secret_access_key = from-config\n");
  Settings settings = {{"AWS_SHARED_CREDENTIALS_FILE", credentials_file},
                       {"AWS_CONFIG_FILE", config_file}};
  ASSERT_OK_AND_ASSIGN(AwsCredentials credentials, Get(settings));
  EXPECT_EQ(credentials.access_key_id, "D");
  settings["AWS_PROFILE"] = "other";
  ASSERT_OK_AND_ASSIGN(credentials, Get(settings));
  EXPECT_EQ(credentials.access_key_id, "O");
  EXPECT_EQ(credentials.secret_access_key, "o/+==");
  EXPECT_EQ(credentials.session_token, "ot");
  ASSERT_OK_AND_ASSIGN(const S3Config config, ParseS3Config("s3://bucket", Env(settings)));
  EXPECT_EQ(config.Host(), "bucket.s3.eu-west-1.amazonaws.com");
  settings["AWS_PROFILE"] = "absent";
  EXPECT_THAT(Get(settings), FailsWith(absl::StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS",
                                       HasSubstr("absent")));
}

TEST_F(S3CredentialsTest, UnsupportedProfilesAreNamed) {
  const std::string file = WriteFile("config", "[default]\nsso_session = corp\n");
  EXPECT_THAT(Get({{"AWS_CONFIG_FILE", file}}),
              FailsWith(absl::StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS",
                        HasSubstr("sso_session")));
}

std::string StsAnswer(absl::Time expires) {
  return absl::StrCat(
      "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
      "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA</AccessKeyId>"
      "<SecretAccessKey>sts/secret</SecretAccessKey><SessionToken>st&amp;==</SessionToken>"
      "<Expiration>",
      absl::FormatTime(absl::RFC3339_sec, expires, absl::UTCTimeZone()),
      "</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
      "</AssumeRoleWithWebIdentityResponse>");
}

TEST_F(S3CredentialsTest, WebIdentityAssumesARoleAndRefreshesBeforeExpiry) {
  ScriptedServer sts([this](int, const ScriptedRequest&) {
    return Reply(200, StsAnswer(clock_.now + absl::Hours(1)));
  });
  auto provider =
      NewDefaultCredentials(Env({{"AWS_WEB_IDENTITY_TOKEN_FILE", WriteFile("token", "j.w/t\n")},
                                 {"AWS_ROLE_ARN", "arn:aws:iam::1:role/r"},
                                 {"AWS_ENDPOINT_URL_STS", sts.endpoint()}}),
                            std::make_shared<HttpTransport>(), clock_);
  ASSERT_OK_AND_ASSIGN(AwsCredentials credentials, provider->Get());
  EXPECT_EQ(credentials.access_key_id, "ASIA");
  EXPECT_EQ(credentials.session_token, "st&==");
  EXPECT_EQ(sts.requests()[0].target, "/");
  EXPECT_EQ(sts.requests()[0].body,
            "Action=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&"
            "RoleSessionName=uniquanf&Version=2011-06-15&WebIdentityToken=j.w%2Ft");
  clock_.now += absl::Minutes(54);
  ASSERT_OK(provider->Get());
  EXPECT_EQ(sts.requests().size(), 1u) << "cached";
  clock_.now += absl::Minutes(2);
  ASSERT_OK(provider->Get());
  EXPECT_EQ(sts.requests().size(), 2u) << "5 minutes before it expires";
  provider->Invalidate();
  ASSERT_OK(provider->Get());
  EXPECT_EQ(sts.requests().size(), 3u);
}

TEST_F(S3CredentialsTest, ARefusingTokenServiceDoesNotLeakTheToken) {
  ScriptedServer sts([](int, const ScriptedRequest& request) {
    return Reply(400, absl::StrCat("<html>you sent ", request.body, "</html>"));
  });
  EXPECT_THAT(Get({{"AWS_WEB_IDENTITY_TOKEN_FILE", WriteFile("token", "secret.jwt")},
                   {"AWS_ROLE_ARN", "arn:role"},
                   {"AWS_ENDPOINT_URL_STS", sts.endpoint()}}),
              FailsWith(absl::StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS",
                        Not(HasSubstr("secret.jwt"))));
}

TEST_F(S3CredentialsTest, OldCredentialsServeWhileTheServiceIsDown) {
  int num_asked = 0;
  bool down = false;
  auto provider = NewCachedCredentials(
      [&]() -> absl::StatusOr<AwsCredentials> {
        ++num_asked;
        if (down) return Unavailable("CREDENTIALS_UNAVAILABLE", "down");
        AwsCredentials credentials;
        credentials.access_key_id = "A";
        credentials.expires = clock_.now + absl::Hours(1);
        return credentials;
      },
      clock_);
  ASSERT_OK(provider->Get());
  down = true;
  clock_.now += absl::Minutes(57);
  EXPECT_OK(provider->Get());
  EXPECT_OK(provider->Get());
  EXPECT_EQ(num_asked, 2) << "asked again at most every 10 seconds";
  clock_.now += absl::Minutes(4);
  EXPECT_THAT(provider->Get(),
              FailsWith(absl::StatusCode::kUnavailable, "CREDENTIALS_UNAVAILABLE"));
}

TEST_F(S3CredentialsTest, InstanceMetadataUsesASessionToken) {
  ScriptedServer metadata([this](int, const ScriptedRequest& request) {
    if (request.method == "PUT") {
      EXPECT_EQ(request.target, "/latest/api/token");
      EXPECT_EQ(request.headers.count("x-aws-ec2-metadata-token-ttl-seconds"), 1u);
      return Reply(200, "imds-token");
    }
    if (request.headers.count("x-aws-ec2-metadata-token") == 0 ||
        request.headers.at("x-aws-ec2-metadata-token") != "imds-token") {
      return Reply(401, "");
    }
    if (absl::EndsWith(request.target, "/security-credentials/")) return Reply(200, "my-role\n");
    EXPECT_EQ(request.target, "/latest/meta-data/iam/security-credentials/my-role");
    return Reply(200, absl::StrCat(R"({"Code":"Success","AccessKeyId":"ASIAI",)",
                                   R"("SecretAccessKey":"is","Token":"it","Expiration":")",
                                   absl::FormatTime(absl::RFC3339_sec, clock_.now + absl::Hours(6),
                                                    absl::UTCTimeZone()),
                                   "\"}"));
  });
  ASSERT_OK_AND_ASSIGN(const AwsCredentials credentials,
                       Get({{"AWS_EC2_METADATA_DISABLED", "false"},
                            {"AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint()}}));
  EXPECT_EQ(credentials.access_key_id, "ASIAI");
  EXPECT_EQ(credentials.session_token, "it");
  EXPECT_EQ(credentials.expires, clock_.now + absl::Hours(6));
}

TEST_F(S3CredentialsTest, ContainersSendTheirAuthorization) {
  ScriptedServer agent([](int, const ScriptedRequest& request) {
    if (request.headers.at("authorization") != "Bearer abc") return Reply(403, "");
    return Reply(200, R"({"AccessKeyId":"ASIAC","SecretAccessKey":"cs","Token":"ct"})");
  });
  ASSERT_OK_AND_ASSIGN(
      const AwsCredentials credentials,
      Get({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.endpoint() + "/v1/credentials"},
           {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", WriteFile("auth", "Bearer abc\n")}}));
  EXPECT_EQ(credentials.access_key_id, "ASIAC");
  EXPECT_EQ(agent.requests()[0].target, "/v1/credentials");
}

TEST_F(S3CredentialsTest, AContainerEndpointElsewhereMustBeHttps) {
  for (const char* url : {"http://example.com/creds", "http://127.0.0.1.example.com@evil/x",
                          "http://127.evil.com/x", "ftp://127.0.0.1/"}) {
    EXPECT_THAT(Get({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", url}}),
                FailsWith(absl::StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS"))
        << url;
  }
}

TEST_F(S3CredentialsTest, AnswersWithoutCredentialsAreRefusedWithoutQuotingThem) {
  ScriptedServer agent([](int, const ScriptedRequest&) {
    return Reply(200, R"({"SecretAccessKey":"lonely-secret"})");
  });
  EXPECT_THAT(Get({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.endpoint()}}),
              FailsWith(absl::StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS",
                        Not(HasSubstr("lonely"))));
}

TEST(RedactTest, RemovesEveryPartAlsoEncoded) {
  AwsCredentials credentials;
  credentials.access_key_id = "AKIA";
  credentials.secret_access_key = "a/b";
  credentials.session_token = "t=";
  EXPECT_EQ(Redact("AKIA a/b a%2Fb t= t%3D", credentials),
            "[redacted] [redacted] [redacted] [redacted] [redacted]");
  EXPECT_EQ(Redact("nothing", AwsCredentials()), "nothing");
}

// ---- Configuration

absl::StatusOr<S3Config> Config(const std::string& uri, Settings settings = {}) {
  settings.emplace("HOME", "/nonexistent");
  return ParseS3Config(uri, Env(settings));
}

TEST(S3ConfigTest, AddressesAsTheEndpointNeeds) {
  ASSERT_OK_AND_ASSIGN(S3Config config, Config("s3://bucket/a/b/"));
  EXPECT_EQ(config.prefix, "a/b");
  EXPECT_EQ(config.Uri(), "s3://bucket/a/b");
  EXPECT_EQ(config.scheme + "://" + config.Host() + config.Path("k"),
            "https://bucket.s3.us-east-1.amazonaws.com/k");
  ASSERT_OK_AND_ASSIGN(config, Config("s3://dotted.bucket", {{"AWS_REGION", "eu-west-1"}}));
  EXPECT_EQ(config.Host() + config.Path("k"), "s3.eu-west-1.amazonaws.com/dotted.bucket/k");
  ASSERT_OK_AND_ASSIGN(config, Config("s3://bucket", {{"AWS_ENDPOINT_URL", "http://host:9000/"}}));
  EXPECT_EQ(config.Host() + config.Path(""), "host:9000/bucket");
  ASSERT_OK_AND_ASSIGN(config, Config("s3://bucket", {{"UNIQUANF_S3_ENDPOINT", "https://h:443"},
                                                      {"AWS_ENDPOINT_URL", "http://other"},
                                                      {"UNIQUANF_S3_ADDRESSING", "virtual"}}));
  EXPECT_EQ(config.Host() + config.Path("k"), "bucket.h/k") << "signed without the default port";
}

TEST(S3ConfigTest, BadSettingsAreNamedWithoutSecrets) {
  for (const char* uri : {"s3://", "s3://ab", "s3:///key", "s3://bu cket", "s3://bucket//x",
                          "s3://bucket/../x", "s3://AKIA:pw@bucket/x", "s3://bucket?token=pw"}) {
    EXPECT_THAT(Config(uri),
                FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_URI", Not(HasSubstr("pw"))))
        << uri;
  }
  for (const char* endpoint :
       {"host:9000", "ftp://host", "http://", "http://user:pw@host", "http://host/path/pw"}) {
    EXPECT_THAT(
        Config("s3://bucket", {{"AWS_ENDPOINT_URL", endpoint}}),
        FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_S3_CONFIG", Not(HasSubstr("pw"))))
        << endpoint;
  }
  EXPECT_THAT(Config("s3://bucket", {{"UNIQUANF_S3_ADDRESSING", "other"}}),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_S3_CONFIG"));
  EXPECT_THAT(Config("s3://bucket", {{"AWS_REGION", "evil.com/"}}),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_S3_CONFIG"));
}

}  // namespace
}  // namespace uniquanf
