// AWS's published vectors: the Signature Version 4 test suite (Apache-2.0), and the examples with
// known signatures of the Amazon S3 API reference ("Authenticating Requests").
#include "common/object_store/sigv4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"

namespace uniquanf {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

const absl::Time kSuiteTime =
    absl::FromCivil(absl::CivilSecond(2015, 8, 30, 12, 36, 0), absl::UTCTimeZone());
const absl::Time kS3Time =
    absl::FromCivil(absl::CivilSecond(2013, 5, 24, 0, 0, 0), absl::UTCTimeZone());
constexpr char kUnreserved[] = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr char kEthiopic[] = "\xe1\x88\xb4";  // U+1234

AwsCredentials SuiteCredentials() {
  AwsCredentials credentials;
  credentials.access_key_id = "AKIDEXAMPLE";
  credentials.secret_access_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
  return credentials;
}
AwsCredentials S3Credentials() {
  AwsCredentials credentials;
  credentials.access_key_id = "AKIAIOSFODNN7EXAMPLE";
  credentials.secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
  return credentials;
}

struct Vector {
  std::string name;
  std::string method;
  std::string path;
  NameValues query;
  NameValues headers;
  std::string body;
  std::string signed_headers;
  std::string signature;
};

void PrintTo(const Vector& vector, std::ostream* out) { *out << vector.name; }

class SigV4SuiteTest : public ::testing::TestWithParam<Vector> {};

TEST_P(SigV4SuiteTest, SignsAsPublished) {
  const Vector& vector = GetParam();
  SigV4Request request;
  request.method = vector.method;
  request.path = vector.path;
  request.query = vector.query;
  request.headers = vector.headers;
  request.headers.emplace_back("Host", "example.amazonaws.com");
  request.payload_sha256 = Sha256Hex(vector.body);
  const SigV4Signature signature =
      SignV4(SuiteCredentials(), "us-east-1", "service", kSuiteTime, &request);
  EXPECT_EQ(signature.authorization,
            absl::StrCat("AWS4-HMAC-SHA256 "
                         "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
                         "SignedHeaders=",
                         vector.signed_headers, ", Signature=", vector.signature))
      << signature.canonical_request;
}

// The suite's "normalize-path" cases are for services that normalise; S3 does not, nor do we.
INSTANTIATE_TEST_SUITE_P(
    Aws, SigV4SuiteTest,
    ::testing::ValuesIn(std::vector<Vector>{
        {"get_vanilla",
         "GET",
         "/",
         {},
         {},
         "",
         "host;x-amz-date",
         "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
        {"get_vanilla_empty_query_key",
         "GET",
         "/",
         {{"Param1", "value1"}},
         {},
         "",
         "host;x-amz-date",
         "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
        {"get_vanilla_query_order_key_case",
         "GET",
         "/",
         {{"Param2", "value2"}, {"Param1", "value1"}},
         {},
         "",
         "host;x-amz-date",
         "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
        {"get_vanilla_query_order_key",
         "GET",
         "/",
         {{"Param1", "value2"}, {"Param1", "Value1"}},
         {},
         "",
         "host;x-amz-date",
         "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"},
        {"get_vanilla_query_order_value",
         "GET",
         "/",
         {{"Param1", "value2"}, {"Param1", "value1"}},
         {},
         "",
         "host;x-amz-date",
         "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694"},
        {"get_vanilla_query_order_encoded",
         "GET",
         "/",
         {{"Param-3", "Value3"}, {"Param", "Value2"}, {kEthiopic, "Value1"}},
         {},
         "",
         "host;x-amz-date",
         "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
        {"get_vanilla_query_unreserved",
         "GET",
         "/",
         {{kUnreserved, kUnreserved}},
         {},
         "",
         "host;x-amz-date",
         "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
        {"get_vanilla_utf8_query",
         "GET",
         "/",
         {{kEthiopic, "bar"}},
         {},
         "",
         "host;x-amz-date",
         "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
        {"get_unreserved",
         "GET",
         absl::StrCat("/", kUnreserved),
         {},
         {},
         "",
         "host;x-amz-date",
         "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
        {"get_utf8",
         "GET",
         absl::StrCat("/", kEthiopic),
         {},
         {},
         "",
         "host;x-amz-date",
         "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
        {"get_space",
         "GET",
         "/example space/",
         {},
         {},
         "",
         "host;x-amz-date",
         "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
        {"get_special_character",
         "GET",
         "/example/$delete",
         {},
         {},
         "",
         "host;x-amz-date",
         "a853c9b21b528b19643d00910d35b83a10c366a10833ceefb45edd6c80e40f27"},
        {"get_header_key_duplicate",
         "GET",
         "/",
         {},
         {{"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}},
         "",
         "host;my-header1;x-amz-date",
         "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
        {"get_header_value_multiline",
         "GET",
         "/",
         {},
         {{"My-Header1", "value1\n  value2\n     value3"}},
         "",
         "host;my-header1;x-amz-date",
         "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd"},
        {"get_header_value_order",
         "GET",
         "/",
         {},
         {{"My-Header1", "value4"},
          {"My-Header1", "value1"},
          {"My-Header1", "value3"},
          {"My-Header1", "value2"}},
         "",
         "host;my-header1;x-amz-date",
         "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
        {"get_header_value_trim",
         "GET",
         "/",
         {},
         {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}},
         "",
         "host;my-header1;my-header2;x-amz-date",
         "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
        {"post_vanilla",
         "POST",
         "/",
         {},
         {},
         "",
         "host;x-amz-date",
         "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
        {"post_vanilla_query",
         "POST",
         "/",
         {{"Param1", "value1"}},
         {},
         "",
         "host;x-amz-date",
         "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
        {"post_header_key_sort",
         "POST",
         "/",
         {},
         {{"My-Header1", "value1"}},
         "",
         "host;my-header1;x-amz-date",
         "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
        {"post_header_value_case",
         "POST",
         "/",
         {},
         {{"My-Header1", "VALUE1"}},
         "",
         "host;my-header1;x-amz-date",
         "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
        {"post_x_www_form_urlencoded",
         "POST",
         "/",
         {},
         {{"Content-Type", "application/x-www-form-urlencoded"}},
         "Param1=value1",
         "content-type;host;x-amz-date",
         "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
        {"post_x_www_form_urlencoded_parameters",
         "POST",
         "/",
         {},
         {{"Content-Type", "application/x-www-form-urlencoded; charset=utf8"}},
         "Param1=value1",
         "content-type;host;x-amz-date",
         "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(SigV4Test, SessionTokensAreAddedAndSigned) {
  AwsCredentials credentials = SuiteCredentials();
  credentials.session_token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
  SigV4Request request{"GET", "/", {}, {{"host", "example.amazonaws.com"}}, kEmptySha256};
  const SigV4Signature signature =
      SignV4(credentials, "us-east-1", "service", kSuiteTime, &request);
  EXPECT_THAT(signature.authorization,
              EndsWith("SignedHeaders=host;x-amz-date;x-amz-security-token, Signature="
                       "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"));
  EXPECT_EQ(request.headers.size(), 3u);  // what is sent is what was signed
}

std::string SignS3(SigV4Request request) {
  request.headers.emplace_back("Host", "examplebucket.s3.amazonaws.com");
  request.headers.emplace_back("x-amz-content-sha256", request.payload_sha256);
  return SignV4(S3Credentials(), "us-east-1", "s3", kS3Time, &request).authorization;
}

TEST(SigV4Test, S3GetObjectExample) {
  EXPECT_THAT(SignS3({"GET", "/test.txt", {}, {{"Range", "bytes=0-9"}}, kEmptySha256}),
              EndsWith("SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature="
                       "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"));
}

TEST(SigV4Test, S3PutObjectExample) {
  EXPECT_THAT(SignS3({"PUT",
                      "/test$file.text",
                      {},
                      {{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
                       {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                      Sha256Hex("Welcome to Amazon S3.")}),
              EndsWith("98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));
}

TEST(SigV4Test, S3GetBucketLifecycleExampleHasAQueryNameWithoutValue) {
  EXPECT_THAT(SignS3({"GET", "/", {{"lifecycle", ""}}, {}, kEmptySha256}),
              EndsWith("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
}

TEST(SigV4Test, S3ListObjectsExample) {
  EXPECT_THAT(SignS3({"GET", "/", {{"prefix", "J"}, {"max-keys", "2"}}, {}, kEmptySha256}),
              EndsWith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

TEST(SigV4Test, S3ChunkedUploadSeedExample) {
  SigV4Request request{"PUT",
                       "/examplebucket/chunkObject.txt",
                       {},
                       {{"host", "s3.amazonaws.com"},
                        {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
                        {"x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
                        {"content-encoding", "aws-chunked"},
                        {"x-amz-decoded-content-length", "66560"},
                        {"content-length", "66824"}},
                       "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"};
  EXPECT_THAT(SignV4(S3Credentials(), "us-east-1", "s3", kS3Time, &request).authorization,
              EndsWith("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"));
}

TEST(SigV4Test, UnsignedPayloadIsPartOfTheSignature) {
  EXPECT_NE(SignS3({"PUT", "/key", {}, {}, kUnsignedPayload}),
            SignS3({"PUT", "/key", {}, {}, kEmptySha256}));
}

// The kinds of requests that libcurl 7.88's own signer gets wrong.
TEST(SigV4Test, PathsAreEncodedOnceAndNotNormalised) {
  SigV4Request request{"GET", "/b/a+b=c:d//e/../%41 ~", {}, {{"host", "h"}}, kEmptySha256};
  EXPECT_THAT(SignV4(S3Credentials(), "r", "s3", kS3Time, &request).canonical_request,
              HasSubstr("GET\n/b/a%2Bb%3Dc%3Ad//e/../%2541%20~\n\n"));
}

TEST(SigV4Test, HeaderNamesThatShareAPrefixAreSortedByName) {
  SigV4Request request{
      "GET",
      "/",
      {},
      {{"x-amz-meta", "2"}, {"x-amz-meta-a", "3"}, {"x-amz-m", "1"}, {"host", "h"}},
      kEmptySha256};
  EXPECT_THAT(SignV4(S3Credentials(), "r", "s3", kS3Time, &request).canonical_request,
              HasSubstr("x-amz-m:1\nx-amz-meta:2\nx-amz-meta-a:3\n\n"));
}

TEST(SigV4Test, QueryValuesKeepNothingUnencoded) {
  EXPECT_EQ(CanonicalQuery({{"prefix", "a/b c+d"}, {"uploads", ""}, {"a", "="}}),
            "a=%3D&prefix=a%2Fb%20c%2Bd&uploads=");
}

}  // namespace
}  // namespace uniquanf
