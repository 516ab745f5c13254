// Errors, specs, times and transport options as they travel between programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "common/base/status.h"
#include "common/base/violations.h"
#include "common/rpc/channel.h"
#include "common/rpc/server_tls.h"
#include "common/rpc/spec_proto.h"
#include "common/rpc/status_proto.h"
#include "common/rpc/time_proto.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

TEST(StatusProtoTest, EveryCodeWithItsReasonComesBack) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status =
        MakeError(static_cast<absl::StatusCode>(code), "SOME_REASON", "what went wrong");
    const grpc::Status wire = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    const absl::Status back = FromGrpcStatus(wire);
    EXPECT_EQ(back.code(), status.code());
    EXPECT_EQ(back.message(), "what went wrong");
    EXPECT_EQ(ErrorReason(back), "SOME_REASON");
  }
  EXPECT_TRUE(FromGrpcStatus(ToGrpcStatus(absl::OkStatus())).ok());
}

TEST(StatusProtoTest, WireFormIsGoogleRpcStatusWithErrorInfo) {
  const grpc::Status wire = ToGrpcStatus(NotFound("JOB_NOT_FOUND", "no job \"jobs/x\""));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(wire.error_details()));
  EXPECT_EQ(details.code(), 5);
  EXPECT_EQ(details.message(), "no job \"jobs/x\"");
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "JOB_NOT_FOUND");
  EXPECT_EQ(info.domain(), "uniquanf");
}

TEST(StatusProtoTest, ViolationsTravelAsABadRequestOfBoundedSize) {
  Violations found;
  EXPECT_TRUE(found.status().ok());
  found.Add("INVALID_SPEC", "bits", "bits is 99");
  found.Add("OTHER", "bits", "said already");
  found.Merge(InvalidInput("OTHER", "no"), "name");
  const grpc::Status wire = ToGrpcStatus(found.status());
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(wire.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(details.details(1).UnpackTo(&bad_request));
  EXPECT_EQ(bad_request.field_violations_size(), 2);
  EXPECT_EQ(FieldViolations(FromGrpcStatus(wire)), FieldViolations(found.status()));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(wire)), "INVALID_SPEC");

  Violations many;
  for (int i = 0; i < 1000; ++i) {
    many.Add("INVALID_SPEC", absl::StrCat("field", i), std::string(100, '\xff'));
  }
  const grpc::Status cut = ToGrpcStatus(many.status());
  EXPECT_LT(cut.error_details().size() + cut.error_message().size(), 7000u);
  EXPECT_THAT(FieldViolations(FromGrpcStatus(cut)).back().description, HasSubstr("more"));
}

TEST(StatusProtoTest, ErrorsWithoutOurDetailsKeepCodeAndMessage) {
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "refused")),
            absl::UnavailableError("refused"));
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::ABORTED, "m", "\xFFgarbage")),
            absl::AbortedError("m"));
  google::rpc::ErrorInfo info;
  info.set_reason("OTHER");
  info.set_domain("example.com");
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  const absl::Status foreign =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::ABORTED, "m", details.SerializeAsString()));
  EXPECT_EQ(ErrorReason(foreign), "");
}

TEST(StatusProtoTest, LongAndMalformedMessagesStayDeliverable) {
  const std::string text = std::string(1999, 'a') + "\xC3\xA9" + std::string(9000, 'b');
  const grpc::Status cut = ToGrpcStatus(InvalidInput("R", text));
  EXPECT_LE(cut.error_message().size(), 2003u);
  EXPECT_EQ(cut.error_message().substr(1999), "...") << "must not split a character";
  EXPECT_EQ(ErrorReason(FromGrpcStatus(cut)), "R");
  const absl::Status repaired = FromGrpcStatus(
      ToGrpcStatus(InvalidInput("R", "bad \xFF\xC0\x80 good \xC3\xA9 end \xE2\x82")));
  EXPECT_EQ(repaired.message(), "bad ??? good \xC3\xA9 end ??");
  EXPECT_EQ(ErrorReason(repaired), "R");
}

TEST(SpecProtoTest, ZeroThatWasSetIsNotADefault) {
  v1::QuantizationSpec proto;
  proto.set_epochs(0);
  proto.set_num_samples(0);
  proto.set_bits(0);
  const auto spec = SpecFromProto(proto);
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->epochs, 0);
  EXPECT_EQ(spec->num_samples, 0);
  EXPECT_EQ(spec->bits, 0) << "Validate refuses it; a silent 4 would not be what was asked for";
}

TEST(SpecProtoTest, RefusesWhatASpecCannotHold) {
  v1::QuantizationSpec proto;
  proto.set_method(static_cast<v1::QuantizationSpec::Method>(99));
  auto spec = SpecFromProto(proto);
  EXPECT_EQ(ErrorReason(spec.status()), "INVALID_SPEC");
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr("99"));

  proto.Clear();
  proto.add_overrides()->set_bits(0);
  spec = SpecFromProto(proto);
  EXPECT_EQ(ErrorReason(spec.status()), "INVALID_SPEC");
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr("overrides[0].bits"));

  proto.Clear();
  proto.add_overrides()->set_group_size(-1);
  EXPECT_THAT(std::string(SpecFromProto(proto).status().message()),
              HasSubstr("overrides[0].group_size"));
}

TEST(TimeProtoTest, RoundTripsAndStaysInRange) {
  const absl::Time time = absl::FromUnixNanos(1700000000123456789);
  EXPECT_EQ(TimeFromProto(TimeToProto(time)), time);
  const absl::Time before_epoch = absl::UnixEpoch() - absl::Nanoseconds(1);
  EXPECT_EQ(TimeFromProto(TimeToProto(before_epoch)), before_epoch);
  EXPECT_GE(TimeToProto(before_epoch).nanos(), 0);
  EXPECT_EQ(TimeToProto(absl::InfiniteFuture()).seconds(), 253402300799);
  EXPECT_EQ(TimeToProto(absl::InfinitePast()).seconds(), -62135596800);
  const absl::Duration duration = -absl::Milliseconds(1500);
  EXPECT_EQ(DurationFromProto(DurationToProto(duration)), duration);
  EXPECT_EQ(DurationToProto(duration).nanos(), -500000000) << "signs must agree";
  EXPECT_EQ(DurationToProto(absl::InfiniteDuration()).seconds(), 315576000000);
}

TEST(ChannelTest, TlsMistakesNameTheOptionOrTheFile) {
  ChannelOptions options;
  options.tls.ca_file = "/nonexistent/ca.pem";
  auto channel = MakeChannel("localhost:1", options);
  EXPECT_EQ(ErrorReason(channel.status()), "INVALID_TLS_OPTIONS");
  EXPECT_THAT(std::string(channel.status().message()), HasSubstr("/nonexistent/ca.pem"));

  const std::string not_pem = ::testing::TempDir() + "/not.pem";
  std::ofstream(not_pem) << "hello";
  options.tls.ca_file = not_pem;
  EXPECT_THAT(std::string(MakeChannel("localhost:1", options).status().message()),
              HasSubstr("not PEM"));

  options.tls.ca_file.clear();
  options.tls.certificate_file = not_pem;
  EXPECT_THAT(std::string(MakeChannel("localhost:1", options).status().message()),
              HasSubstr("key file is missing"));

  ServerTlsOptions server;
  server.client_ca_file = not_pem;
  EXPECT_EQ(ErrorReason(ServerTls::Open(server).status()), "INVALID_TLS_OPTIONS");
  EXPECT_TRUE(ServerTls::Open({}).ok());
}

TEST(ServerListTest, EveryElementMustNameAPort) {
  for (const char* list :
       {"127.0.0.1:1,", "127.0.0.1:1,host", "127.0.0.1:1,:2", "a:1,dns:///b:2"}) {
    EXPECT_THAT(MakeChannel(list).status(),
                FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_TARGET"))
        << list;
  }
}

TEST(ServerListTest, UnknownHostsAreLeftOutWhileThereAreOthers) {
  EXPECT_THAT(MakeChannel("127.0.0.1:1,no-such-host.invalid:2").status(), IsOk());
  EXPECT_THAT(MakeChannel("no-such-host.invalid:1,no-other-host.invalid:2").status(),
              FailsWith(absl::StatusCode::kUnavailable, "UNKNOWN_HOST"));
}

TEST(ServerListTest, TlsNeedsTheNameInTheCertificates) {
  ChannelOptions options;
  options.tls.enabled = true;
  EXPECT_THAT(MakeChannel("127.0.0.1:1,127.0.0.1:2", options).status(),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_TARGET"));
  options.tls.server_name = "quantizer";
  EXPECT_THAT(MakeChannel("127.0.0.1:1,127.0.0.1:2", options).status(), IsOk());
}

}  // namespace
}  // namespace uniquanf
