// The S3 store against a server that fails in ways that a real one does not on demand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/object_store/s3_store.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/common/s3_scripted_server.h"

namespace uniquanf {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

constexpr char kAccessKey[] = "AKIASECRETKEYNAME";
constexpr char kSecret[] = "very/secret+value";
constexpr char kToken[] = "session==token/x";

std::string Pattern(size_t size_bytes) {
  std::string data(size_bytes, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>((i * 2654435761u) >> 11);
  return data;
}

// A store on a scripted server, with waits recorded instead of waited.
class S3FaultsTest : public ::testing::Test {
 protected:
  std::shared_ptr<ObjectStore> Serve(ScriptedServer::Handler handler) {
    server_ = std::make_unique<ScriptedServer>(std::move(handler));
    S3StoreOptions options;
    options.environment = [endpoint = server_->endpoint()](absl::string_view name) -> std::string {
      if (name == "UNIQUANF_S3_ENDPOINT") return endpoint;
      if (name == "AWS_ACCESS_KEY_ID") return kAccessKey;
      if (name == "AWS_SECRET_ACCESS_KEY") return kSecret;
      if (name == "AWS_SESSION_TOKEN") return kToken;
      return "";
    };
    options.client.max_attempts = 4;
    options.client.stall_timeout = absl::Seconds(1);
    options.client.jitter_seed = 7;
    options.client.sleep = [this](absl::Duration wait) { waits_.push_back(wait); };
    if (interruptible_) {
      options.client.sleep = nullptr;
      options.client.stall_timeout = absl::Minutes(5);
      options.client.stop = [this] { return interrupted_.load(); };
    }
    options.min_part_bytes = 1000;
    return OpenS3Store("s3://bucket/p", options).value();
  }
  std::vector<ScriptedRequest> requests() const { return server_->requests(); }

  // Of a store that is interrupted `after` the operation has begun: ends within two seconds.
  absl::Status Interrupt(absl::Duration after, const std::function<absl::Status()>& operation) {
    const absl::Time start = absl::Now();
    std::thread interrupt([&] {
      absl::SleepFor(after);
      interrupted_ = true;
    });
    const absl::Status status = operation();
    EXPECT_GE(absl::Now() - start, after - absl::Milliseconds(1)) << "ended by itself";
    EXPECT_LT(absl::Now() - start, after + absl::Seconds(2));
    interrupt.join();
    return status;
  }

  bool interruptible_ = false;  // before Serve
  std::atomic<bool> interrupted_{false};
  std::vector<absl::Duration> waits_;  // before server_, whose requests may still be writing
  std::unique_ptr<ScriptedServer> server_;
};

// ---- Reading

TEST_F(S3FaultsTest, ATruncatedBodyIsContinuedFromWhereItBroke) {
  const std::string object = Pattern(5000);
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    ScriptedReply reply = PartialContent(object, request, "\"v1\"");
    if (number == 1) {
      reply.bytes.resize(reply.bytes.size() - 3000);
      reply.after = ScriptedReply::kClose;
    }
    return reply;
  });
  std::string back(4000, '\0');
  ASSERT_OK(store->ReadAt("key", 500, back.size(), back.data()));
  EXPECT_EQ(back, object.substr(500, 4000));
  ASSERT_EQ(requests().size(), 2u);
  EXPECT_EQ(requests()[0].headers.at("range"), "bytes=500-4499");
  EXPECT_EQ(requests()[1].headers.at("range"), "bytes=1500-4499");
  EXPECT_EQ(requests()[1].headers.at("if-match"), "\"v1\"");
}

TEST_F(S3FaultsTest, AResetInTheMiddleIsContinued) {
  const std::string object = Pattern(300'000);
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    ScriptedReply reply = PartialContent(object, request, "\"v1\"");
    if (number <= 3) {
      reply.bytes.resize(reply.bytes.size() / 2);
      reply.after = ScriptedReply::kReset;
    }
    return reply;
  });
  std::string back(object.size(), '\0');
  ASSERT_OK(store->ReadAt("key", 0, back.size(), back.data()));
  EXPECT_EQ(back, object);
}

TEST_F(S3FaultsTest, AnObjectReplacedWhileItIsReadIsReadAnew) {
  const std::string old_object(4000, 'o'), new_object(4000, 'n');
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    if (number == 1) {
      ScriptedReply reply = PartialContent(old_object, request, "\"old\"");
      reply.bytes.resize(reply.bytes.size() - 2000);
      reply.after = ScriptedReply::kClose;
      return reply;
    }
    if (request.headers.count("if-match") > 0) return S3Error(412, "PreconditionFailed");
    return PartialContent(new_object, request, "\"new\"");
  });
  std::string back(4000, '\0');
  ASSERT_OK(store->ReadAt("key", 0, back.size(), back.data()));
  EXPECT_EQ(back, new_object) << "bytes of two versions are mixed";
}

TEST_F(S3FaultsTest, AServerThatIgnoresIfMatchCannotMixVersionsEither) {
  const std::string old_object(4000, 'o'), new_object(4000, 'n');
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    ScriptedReply reply = PartialContent(number == 1 ? old_object : new_object, request,
                                         number == 1 ? "\"old\"" : "\"new\"");
    if (number == 1) {
      reply.bytes.resize(reply.bytes.size() - 2000);
      reply.after = ScriptedReply::kClose;
    }
    return reply;
  });
  std::string back(4000, '\0');
  ASSERT_OK(store->ReadAt("key", 0, back.size(), back.data()));
  EXPECT_EQ(back, new_object);
}

TEST_F(S3FaultsTest, AVersionIsReadOnItsConditionFromTheFirstAttemptOn) {
  const std::string object = Pattern(4000);
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    if (request.headers.at("if-match") != "\"v1\"") return S3Error(412, "PreconditionFailed");
    ScriptedReply reply = PartialContent(object, request, "\"v1\"");
    if (number == 1) {
      reply.bytes.resize(reply.bytes.size() - 2000);
      reply.after = ScriptedReply::kClose;
    }
    return reply;
  });
  std::string back(4000, '\0');
  ASSERT_OK(store->ReadVersionAt("key", "\"v1\"", 0, back.size(), back.data()));
  EXPECT_EQ(back, object);
  EXPECT_THAT(store->ReadVersionAt("key", "\"v0\"", 0, back.size(), back.data()),
              FailsWith(absl::StatusCode::kAborted, "OBJECT_CHANGED"));
  EXPECT_EQ(requests().size(), 3u) << "an object that has changed is no reason to try again";
}

TEST_F(S3FaultsTest, AVersionThatEndsHalfwayIsNotReadOn) {
  const std::string old_object(4000, 'o'), new_object(4000, 'n');
  for (const bool knows_if_match : {true, false}) {
    auto store = Serve([&](int number, const ScriptedRequest& request) {
      if (number > 1) {
        return knows_if_match ? S3Error(412, "PreconditionFailed")
                              : PartialContent(new_object, request, "\"new\"");
      }
      ScriptedReply reply = PartialContent(old_object, request, "\"old\"");
      reply.bytes.resize(reply.bytes.size() - 2000);
      reply.after = ScriptedReply::kClose;
      return reply;
    });
    std::string back(4000, '\0');
    EXPECT_THAT(store->ReadVersionAt("key", "\"old\"", 0, back.size(), back.data()),
                FailsWith(absl::StatusCode::kAborted, "OBJECT_CHANGED"))
        << knows_if_match;
  }
}

TEST_F(S3FaultsTest, WeakEntityTagsAreNoVersions) {
  auto store = Serve([&](int, const ScriptedRequest&) {
    return Reply(200, "", "ETag: W/\"v1\"\r\nLast-Modified: Wed, 01 Nov 2023 00:00:00 GMT\r\n");
  });
  ASSERT_OK_AND_ASSIGN(const ObjectInfo info, store->Stat("key"));
  EXPECT_EQ(info.version, "");
}

TEST_F(S3FaultsTest, AnEntityTagThatNeverHoldsEndsAfterBoundedAttempts) {
  const std::string object = Pattern(4000);
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    if (request.headers.count("if-match") > 0) return S3Error(412, "PreconditionFailed");
    ScriptedReply reply = PartialContent(object, request, absl::StrCat("\"", number, "\""));
    reply.bytes.resize(reply.bytes.size() - 10);
    reply.after = ScriptedReply::kClose;
    return reply;
  });
  std::string back(4000, '\0');
  EXPECT_THAT(store->ReadAt("key", 0, back.size(), back.data()),
              FailsWith(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE"));
  EXPECT_EQ(requests().size(), 4u);
}

TEST_F(S3FaultsTest, AWrongRangeIsNotTaken) {
  const std::string object = Pattern(4000);
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    if (number > 1) return PartialContent(object, request, "\"v\"");
    return Reply(206, object.substr(0, 100), "ETag: \"v\"\r\nContent-Range: bytes 0-99/4000\r\n");
  });
  std::string back(100, '\0');
  ASSERT_OK(store->ReadAt("key", 700, back.size(), back.data()));
  EXPECT_EQ(back, object.substr(700, 100));
}

TEST_F(S3FaultsTest, MoreBytesThanAskedForDoNotOverflowTheBuffer) {
  auto store = Serve([&](int, const ScriptedRequest&) {
    return Reply(206, Pattern(5000), "ETag: \"v\"\r\nContent-Range: bytes 0-99/9000\r\n");
  });
  std::string back(100 + 64, 'g');
  const absl::Status status = store->ReadAt("key", 0, 100, back.data());
  EXPECT_THAT(status, FailsWith(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE"));
  EXPECT_EQ(back.substr(100), std::string(64, 'g'));
}

TEST_F(S3FaultsTest, AServerWithoutRangesIsNamedAsSuch) {
  auto store = Serve([&](int, const ScriptedRequest&) { return Reply(200, "the whole object"); });
  char out[4];
  EXPECT_THAT(store->ReadAt("key", 4, 4, out),
              FailsWith(absl::StatusCode::kFailedPrecondition, "S3_PROTOCOL", HasSubstr("Range")));
}

TEST_F(S3FaultsTest, ASlowTrickleIsGivenUpAndTriedAgain) {
  const std::string object = Pattern(4000);
  auto store = Serve([&](int number, const ScriptedRequest& request) {
    ScriptedReply reply = PartialContent(object, request, "\"v\"");
    if (number == 1) {
      reply.bytes.resize(reply.bytes.size() - 3000);
      reply.after = ScriptedReply::kHang;
    }
    return reply;
  });
  std::string back(4000, '\0');
  ASSERT_OK(store->ReadAt("key", 0, back.size(), back.data()));
  EXPECT_EQ(back, object);
  EXPECT_EQ(requests().size(), 2u);
}

TEST_F(S3FaultsTest, AWholeObjectCutShortIsReadAgain) {
  auto store = Serve([&](int number, const ScriptedRequest&) {
    ScriptedReply reply = Reply(200, "0123456789");
    if (number == 1) {
      reply.bytes.resize(reply.bytes.size() - 5);
      reply.after = ScriptedReply::kClose;
    }
    return reply;
  });
  ASSERT_OK_AND_ASSIGN(const std::string data, store->Read("key", 100));
  EXPECT_EQ(data, "0123456789");
}

// ---- Retries

TEST_F(S3FaultsTest, AStormOf503EndsAfterBoundedAttemptsWithJitteredWaits) {
  auto store = Serve([&](int, const ScriptedRequest&) { return S3Error(503, "SlowDown"); });
  EXPECT_THAT(store->Stat("key"),
              FailsWith(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE", HasSubstr("503")));
  EXPECT_EQ(requests().size(), 4u);
  ASSERT_EQ(waits_.size(), 3u);
  absl::Duration limit = absl::Milliseconds(50);
  for (const absl::Duration wait : waits_) {
    EXPECT_GE(wait, absl::ZeroDuration());
    EXPECT_LE(wait, limit);
    limit *= 2;
  }
  EXPECT_NE(waits_[1], waits_[2]);
}

TEST_F(S3FaultsTest, RetryAfterIsHonouredWithinTheLimit) {
  auto store = Serve([&](int number, const ScriptedRequest&) {
    if (number > 2) return Reply(200, "done");
    return Reply(503, "", number == 1 ? "Retry-After: 2\r\n" : "Retry-After: 100000\r\n");
  });
  ASSERT_OK(store->Read("key", 100));
  ASSERT_EQ(waits_.size(), 2u);
  EXPECT_EQ(waits_[0], absl::Seconds(2));
  EXPECT_EQ(waits_[1], absl::Seconds(5));
}

TEST_F(S3FaultsTest, TransientFailuresOfEveryOperationAreRetried) {
  for (const int status : {408, 429, 500, 502, 503, 504}) {
    auto store = Serve([&](int number, const ScriptedRequest&) {
      if (number % 2 == 1) return Reply(status, "<html>proxy error</html>");
      return Reply(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
                   "Last-Modified: Fri, 24 May 2013 00:00:00 GMT\r\n");
    });
    EXPECT_OK(store->Read("key", 1000)) << status;
    EXPECT_OK(store->Write("key", "x")) << status;
    EXPECT_OK(store->List({})) << status;
    EXPECT_OK(store->Delete("key")) << status;
  }
}

TEST_F(S3FaultsTest, PermanentFailuresAreNotRetried) {
  for (const int status : {400, 403, 404, 405, 501}) {
    auto store =
        Serve([&](int, const ScriptedRequest&) { return Reply(status, "<html>no</html>"); });
    EXPECT_FALSE(store->Read("key", 1000).ok()) << status;
    EXPECT_EQ(requests().size(), 1u) << status;
  }
}

TEST_F(S3FaultsTest, NobodyListeningIsUnavailable) {
  auto store = Serve([](int, const ScriptedRequest&) { return Reply(200, ""); });
  server_.reset();
  EXPECT_THAT(store->Stat("key"),
              FailsWith(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE", HasSubstr("key")));
}

TEST_F(S3FaultsTest, RedirectsAreRefusedWithTheRegion) {
  ScriptedServer elsewhere([](int, const ScriptedRequest&) { return Reply(200, "stolen"); });
  auto store = Serve([&](int, const ScriptedRequest&) {
    return Reply(307, "",
                 absl::StrCat("Location: ", elsewhere.endpoint(),
                              "/\r\nx-amz-bucket-region: eu-central-1\r\n"));
  });
  EXPECT_THAT(store->Read("key", 100), FailsWith(absl::StatusCode::kFailedPrecondition,
                                                 "S3_REDIRECT", HasSubstr("eu-central-1")));
  EXPECT_TRUE(elsewhere.requests().empty());
}

TEST_F(S3FaultsTest, HtmlInsteadOfAListingIsNamed) {
  auto store =
      Serve([](int, const ScriptedRequest&) { return Reply(200, "<html>Please log in</html>"); });
  EXPECT_THAT(store->List({}), FailsWith(absl::StatusCode::kFailedPrecondition, "S3_PROTOCOL"));
}

TEST_F(S3FaultsTest, EntityBombsAreRefused) {
  auto store = Serve([](int, const ScriptedRequest&) {
    return Reply(200,
                 "<!DOCTYPE x [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>"
                 "<ListBucketResult><IsTruncated>&b;</IsTruncated></ListBucketResult>");
  });
  EXPECT_THAT(store->List({}), FailsWith(absl::StatusCode::kFailedPrecondition, "S3_PROTOCOL"));
}

// ---- Writing

// Remembers writes like a server, but may say something else about them.
struct FakeObject {
  bool exists = false;
  std::string write_id;
  size_t size_bytes = 0;
};

ScriptedReply Head(const FakeObject& object) {
  if (!object.exists) return {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"};
  return {absl::StrCat("HTTP/1.1 200 OK\r\nContent-Length: ", object.size_bytes,
                       "\r\nx-amz-meta-uniquanf-write: ", object.write_id, "\r\n\r\n")};
}

TEST_F(S3FaultsTest, AConditionalWriteThatWorkedButSaidItFailedCountsAsWorked) {
  FakeObject object;
  auto store = Serve([&](int number, const ScriptedRequest& request) -> ScriptedReply {
    if (request.method == "HEAD") return Head(object);
    EXPECT_EQ(request.headers.at("if-none-match"), "*");
    if (object.exists) return S3Error(412, "PreconditionFailed");
    object.exists = true;
    object.write_id = request.headers.at("x-amz-meta-uniquanf-write");
    return {"", ScriptedReply::kReset};  // done, and the answer is lost
  });
  WriteOptions options;
  options.if_absent = true;
  EXPECT_OK(store->Write("key", "mine", options));
}

TEST_F(S3FaultsTest, AConditionalWriteThatLostAfterAFailedAttemptIsRefused) {
  FakeObject object{true, "someone-else", 5};
  auto store = Serve([&](int number, const ScriptedRequest& request) -> ScriptedReply {
    if (request.method == "HEAD") return Head(object);
    return number == 1 ? S3Error(500, "InternalError") : S3Error(412, "PreconditionFailed");
  });
  WriteOptions options;
  options.if_absent = true;
  EXPECT_THAT(store->Write("key", "mine", options),
              FailsWith(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS"));
}

// A multipart upload up to its completion, which `complete` answers.
ScriptedReply Multipart(const ScriptedRequest& request, FakeObject* object,
                        const std::function<ScriptedReply()>& complete) {
  if (request.method == "HEAD") return Head(*object);
  if (request.method == "DELETE") return Reply(204, "");
  if (request.method == "PUT") {
    object->size_bytes += request.body.size();
    return Reply(200, "", "ETag: \"part\"\r\n");
  }
  if (absl::StrContains(request.target, "uploads=")) {
    object->write_id = request.headers.at("x-amz-meta-uniquanf-write");
    return Reply(200,
                 "<InitiateMultipartUploadResult><UploadId>u/1+2</UploadId>"
                 "</InitiateMultipartUploadResult>");
  }
  return complete();
}

constexpr char kCompleted[] =
    "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>";

TEST_F(S3FaultsTest, ACompletionWhoseAnswerIsLostCountsAsDone) {
  FakeObject object;
  auto store = Serve([&](int, const ScriptedRequest& request) {
    return Multipart(request, &object, [&]() -> ScriptedReply {
      if (object.exists) return S3Error(404, "NoSuchUpload");
      object.exists = true;
      return {"", ScriptedReply::kReset};
    });
  });
  EXPECT_OK(store->Write("key", Pattern(2500)));
}

TEST_F(S3FaultsTest, AnErrorInsideA200CompletionIsAnError) {
  FakeObject object;
  int num_completions = 0;
  auto store = Serve([&](int, const ScriptedRequest& request) {
    return Multipart(request, &object, [&] {
      if (++num_completions == 1) return S3Error(200, "InternalError");
      object.exists = true;
      return Reply(200, kCompleted);
    });
  });
  EXPECT_OK(store->Write("key", Pattern(2500)));
  EXPECT_EQ(num_completions, 2);
}

TEST_F(S3FaultsTest, AServerThatLosesAPartIsFoundOut) {
  FakeObject object;
  auto store = Serve([&](int, const ScriptedRequest& request) {
    return Multipart(request, &object, [&] {
      object.exists = true;
      object.size_bytes -= 1000;
      return Reply(200, kCompleted);
    });
  });
  EXPECT_THAT(store->Write("key", Pattern(2500)),
              FailsWith(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
}

TEST_F(S3FaultsTest, AServerThatRefusesTheConditionOnCompletionGetsItWithout) {
  FakeObject object;
  std::vector<bool> conditional;
  auto store = Serve([&](int, const ScriptedRequest& request) {
    return Multipart(request, &object, [&] {
      conditional.push_back(request.headers.count("if-none-match") > 0);
      if (conditional.back()) return S3Error(501, "NotImplemented");
      object.exists = true;
      return Reply(200, kCompleted);
    });
  });
  WriteOptions options;
  options.if_absent = true;
  EXPECT_OK(store->Write("key", Pattern(2500), options));
  EXPECT_EQ(conditional, std::vector<bool>({true, false}));
}

TEST_F(S3FaultsTest, AFailedPartAbortsTheUpload) {
  FakeObject object;
  auto store = Serve([&](int, const ScriptedRequest& request) {
    if (request.method == "PUT") return S3Error(403, "AccessDenied");
    return Multipart(request, &object, [] { return Reply(200, kCompleted); });
  });
  ASSERT_OK_AND_ASSIGN(auto writer, store->NewWriter("key", {}));
  const auto denied = FailsWith(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED");
  // Parts are sent in the background: the failure shows when a place is needed, or in Commit.
  EXPECT_THAT(writer->Append(Pattern(20'000)), denied);
  EXPECT_THAT(writer->Append("more"), denied) << "the first error is repeated";
  EXPECT_THAT(writer->Commit(), denied);
  EXPECT_THAT(store->Write("key", Pattern(2500)), denied);
  EXPECT_EQ(requests().back().method, "DELETE");
  EXPECT_EQ(requests().back().target, "/bucket/p/key?uploadId=u%2F1%2B2");
}

// ---- Interruption

const auto kInterrupted = FailsWith(absl::StatusCode::kCancelled, "REQUEST_INTERRUPTED");

TEST_F(S3FaultsTest, ASilentServerHoldsNobodyWhoIsInterrupted) {
  interruptible_ = true;
  auto store = Serve([](int, const ScriptedRequest&) {
    return ScriptedReply{"", ScriptedReply::kHang};
  });
  std::string data(100, '\0');
  EXPECT_THAT(Interrupt(absl::Milliseconds(300),
                        [&] { return store->ReadAt("key", 0, data.size(), data.data()); }),
              kInterrupted);
  EXPECT_THAT(store->Write("key", "x"), kInterrupted) << "nor later";
  EXPECT_EQ(requests().size(), 1u);
}

TEST_F(S3FaultsTest, ASilenceInTheMiddleOfABodyIsInterrupted) {
  interruptible_ = true;
  const std::string object = Pattern(5000);
  auto store = Serve([&](int, const ScriptedRequest& request) {
    ScriptedReply reply = PartialContent(object, request, "\"v1\"");
    reply.bytes.resize(reply.bytes.size() - 3000);
    reply.after = ScriptedReply::kHang;
    return reply;
  });
  std::string data(4000, '\0');
  EXPECT_THAT(Interrupt(absl::Milliseconds(300),
                        [&] { return store->ReadAt("key", 0, data.size(), data.data()); }),
              kInterrupted);
}

TEST_F(S3FaultsTest, AWaitForTheNextAttemptIsInterrupted) {
  interruptible_ = true;
  auto store =
      Serve([](int, const ScriptedRequest&) { return Reply(503, "", "Retry-After: 5\r\n"); });
  EXPECT_THAT(Interrupt(absl::Milliseconds(300), [&] { return store->Stat("key").status(); }),
              kInterrupted);
  EXPECT_EQ(requests().size(), 1u);
}

TEST_F(S3FaultsTest, AnInterruptedUploadIsAborted) {
  interruptible_ = true;
  FakeObject object;
  auto store = Serve([&](int, const ScriptedRequest& request) {
    if (request.method == "PUT") return ScriptedReply{"", ScriptedReply::kHang};
    return Multipart(request, &object, [] { return Reply(200, kCompleted); });
  });
  EXPECT_THAT(
      Interrupt(absl::Milliseconds(300), [&] { return store->Write("key", Pattern(20'000)); }),
      kInterrupted);
  EXPECT_EQ(requests().back().method, "DELETE");
}

TEST_F(S3FaultsTest, AQuotaIsStorageFull) {
  auto store = Serve([](int, const ScriptedRequest&) { return S3Error(403, "QuotaExceeded"); });
  EXPECT_THAT(store->Write("key", "x"),
              FailsWith(absl::StatusCode::kResourceExhausted, "STORAGE_FULL"));
}

TEST(S3PartBytesTest, TenThousandPartsAreNeverReached) {
  constexpr uint64_t kLargestObject = uint64_t{5} << 40;
  uint64_t bytes = 0;
  int num_parts = 0;
  for (; bytes < kLargestObject; ++num_parts) bytes += S3PartBytes(bytes, kDefaultMinPartBytes);
  EXPECT_LT(num_parts, 8000);
  EXPECT_EQ(S3PartBytes(0, kDefaultMinPartBytes), uint64_t{8} << 20);
}

// ---- Requests as sent, credentials

TEST_F(S3FaultsTest, ConnectionsAreReusedAndDeadOnesReplaced) {
  auto store = Serve([](int number, const ScriptedRequest&) {
    ScriptedReply reply = Reply(200, "data");
    // Says "keep alive" and closes: the client meets a dead connection next time.
    if (number == 2) reply.after = ScriptedReply::kClose;
    return reply;
  });
  for (int i = 0; i < 4; ++i) EXPECT_OK(store->Read("key", 100));
}

TEST_F(S3FaultsTest, WhatAServerRepeatsOfCredentialsIsRedacted) {
  auto store = Serve([](int, const ScriptedRequest& request) {
    return S3Error(
        403, "SignatureDoesNotMatch",
        absl::StrCat("key ", kAccessKey, " secret ", kSecret, " token ", kToken, " ",
                     UriEncode(kToken, false), " ", request.headers.at("authorization")));
  });
  for (const absl::Status& status :
       {store->Read("key", 10).status(), store->Write("key", "x"), store->List({}).status(),
        store->Delete("key"), store->Write("key", Pattern(2500))}) {
    EXPECT_THAT(status, FailsWith(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                                  HasSubstr("[redacted]")));
    EXPECT_THAT(status.ToString(),
                Not(AnyOf(HasSubstr(kAccessKey), HasSubstr(kSecret), HasSubstr(kToken),
                          HasSubstr(UriEncode(kToken, false)))));
  }
  for (const ScriptedRequest& request : requests()) {
    EXPECT_THAT(request.headers, Contains(Key("x-amz-security-token")));
    EXPECT_THAT(request.target, Not(HasSubstr("AKIA"))) << "credentials are in the URL";
  }
}

TEST_F(S3FaultsTest, FailedTransfersDoNotShowCredentials) {
  auto store = Serve([](int, const ScriptedRequest&) {
    return ScriptedReply{"", ScriptedReply::kReset};
  });
  const absl::Status status = store->Write("key", "x");
  EXPECT_THAT(status, FailsWith(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE"));
  EXPECT_THAT(status.ToString(),
              Not(AnyOf(HasSubstr(kAccessKey), HasSubstr(kSecret), HasSubstr(kToken))));
}

}  // namespace
}  // namespace uniquanf
