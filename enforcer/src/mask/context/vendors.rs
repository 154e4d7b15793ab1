//! Vendors whose credentials have no mark of their own, and what their values look like.
//!
//! Names are in lower case and without separators: `new_relic` and `newRelic` are `newrelic`.

use super::Form;

/// Values of one form, and whose they are.
pub(super) struct Group {
    /// The bytes of a value.
    pub(super) form: Form,
    /// Its least length.
    pub(super) min: usize,
    /// Its greatest.
    pub(super) max: usize,
    /// The vendors, between spaces.
    pub(super) names: &'static str,
}

const fn group(form: Form, min: usize, max: usize, names: &'static str) -> Group {
    Group { form, min, max, names }
}

/// Names that are words, too: they count only as words of their own.
pub(super) const COMMON: &str = "adobe apollo asana atlassian audd azure box bulbul canny cicero column confluent discord ditto \
    dropbox enigma envoy exchangerate findl fixer flat fulcrum geocode groove guardian heroku \
    honeycomb ibm jenkins kafka karma less linear lob looker moderation monday nasdaq noticeable \
    plaid podio postmark protocols qase raven rawg segment sendbird sentry sonar splunk square \
    squarespace streak teamwork telegram terraform tly travis twitch twitter vyte webscraping wistia";

/// Vendors with values of many forms: a word for a credential must stand beside the name.
pub(super) const OPEN: &str = "ably abuseipdb accuweather adzuna agora airbrake airship airtable airvisual algorithmia \
    amplitude anthropic apideck apiflash apify apilayer apimatic apptivo artsy authress autodesk \
    avaza aylien ayrshare bannerbear bitfinex bitly bitmex braintree browserstack bugherd bugsnag \
    buildkite bulksms caspio cexio chatbot checkvist clarifai clearbit clickhelp clickhouse \
    clicksend clickup cloudinary cloudsmith codacy codeclimate coinapi coinmarketcap contentful \
    contentstack convertapi copyscape coresignal crowdin currencycloud currencyscoop customerio \
    datadog debounce deepai deepseek delighted digitalocean docusign doppler dotdigital dwolla \
    dynatrace easypost edamam edenai elasticemail etherscan eventbrite faceplusplus fibery flowroute \
    flutterwave flyio freshdesk fullstory geocodio getgeoapi giphy github gitlab \
    gocardless graphcms graphhopper groq happyscribe helpcrunch helpscout hubspot huggingface \
    hypertrack infracost infura intercom intrinio ip2location ipapi ipinfodb ipqualityscore jotform \
    kaleyra keenio klipfolio langchain langfuse larksuite liveagent locationiq logdna loggly \
    logrocket magicbell mailjet mailmodo marketstack mattermost maxmind mediastack mesibo metaapi \
    mindmeister mistral mixpanel mockaroo monkeylearn moralis myfreshworks nethunt neutrinoapi nexmo \
    nftport nightfall notion nutritionix omnisend onelogin onepagecrm openai opengraphr openrouter \
    optimizely pagerduty parsehub paystack pdflayer perplexity pinata pinecone pipedream \
    pivotaltracker plivo poloniex portainer positionstack privatekeyio pubnub pulumi purestake \
    pusher rackspace razorpay readme redislabs replicate ringcentral rollbar runrunit salesblink \
    salesforce salesmate saucelabs scalingo screenshotapi screenshotlayer scrutinizer securitytrails \
    selectpdf sendgrid sendinblue serpapi serpstack shippo shodan shopify shutterstock signalwire \
    smartsheet smartystreets smooch snipcart sourcegraph stitchdata stormglass strava stripe stytch \
    supabase surveybot swiftype tatum taxjar teamgate telesign textmagic theoddsapi thinkific \
    thousandeyes ticketmaster tiingo timezoneapi todoist tradier transferwise travelpayouts twilio \
    typeform uclassify upstash vagrantcloud vatlayer vercel verimail visualcrossing voodoosms \
    walkscore weatherapi weatherstack wepay whoxy wrike zapier zenrows zenserp zeplin zipcodebase \
    zoominfo zulip";

/// Vendors with values of one form.
pub(super) static GROUPS: &[Group] = &[
    group(Form::Digits, 16, 16, "asana"),
    group(Form::Digits, 18, 18, "discord"),
    group(Form::Hex, 24, 24, "kucoin sendbird"),
    group(
        Form::Hex,
        32,
        32,
        "autopilot azure facebook finicity gtmetrix ipstack lemlist linear madkudu pdfshift speechtext \
         streak",
    ),
    group(Form::Hex, 32, 36, "jenkins"),
    group(Form::Hex, 37, 37, "cloudflare"),
    group(Form::Hex, 40, 40, "circleci docparser meraki parseur sendbird sonar stormboard"),
    group(Form::Hex, 44, 44, "ritekit"),
    group(Form::Hex, 48, 48, "packagecloud"),
    group(Form::Hex, 60, 64, "netlify"),
    group(Form::Hex, 64, 64, "besnappy discord holistic prodpad sentry virustotal youneedabudget"),
    group(Form::Alnum, 10, 10, "algolia"),
    group(Form::Alnum, 12, 12, "adobe"),
    group(Form::Alnum, 14, 14, "sumo"),
    group(Form::Alnum, 14, 64, "sumologic"),
    group(Form::Alnum, 15, 15, "dropbox"),
    group(Form::Alnum, 16, 16, "confluent kafka linkedin"),
    group(Form::Alnum, 20, 20, "eraser finicity finnhub karma looker noticeable statuscake"),
    group(Form::Alnum, 20, 24, "looker"),
    group(Form::Alnum, 21, 21, "carboninterface"),
    group(Form::Alnum, 22, 22, "apollo splunk"),
    group(Form::Alnum, 22, 32, "honeycomb"),
    group(
        Form::Alnum,
        24,
        24,
        "atlassian betterstack etsy exchangerate flightapi looker plaid replyio storyblok",
    ),
    group(Form::Alnum, 25, 25, "messagebird twitter"),
    group(Form::Alnum, 26, 26, "storyblok timecamp"),
    group(Form::Alnum, 27, 27, "glassnode miro"),
    group(Form::Alnum, 28, 28, "browshot geocode pollsapi"),
    group(Form::Alnum, 30, 30, "alibaba nylas plaid twitch"),
    group(Form::Alnum, 30, 40, "asana"),
    group(Form::Alnum, 31, 31, "worldweather"),
    group(
        Form::Alnum,
        32,
        32,
        "algolia asana assemblyai atera aviationstack axonaut bittrex box bulbul calendarific chartmogul \
         checklyhq codecov coinlayer countrylayer currencyfreaks currencylayer detectify detectlanguage \
         diffbot droneci feedier finage financialmodelingprep fixer flickr geoapify getresponse \
         ipgeolocation languagelayer linkpreview loyverse mailboxlayer mailerlite mapquest moonclerk \
         netcore newsapi numverify onfleet opencagedata openuv openweather owm paydirtapp pepipost podio \
         postageapp privateai pyowm rawg salescookie scraperapi scraperbox scrapingant sherpadesk simfin \
         spoonacular spotify statuspal survicate toggl tomtom twelvedata upcdatabase upwave userstack \
         veriphone vpnapi weatherbit webscraping yousign zerobounce zerotier",
    ),
    group(Form::Alnum, 32, 76, "trello"),
    group(Form::Alnum, 33, 33, "simvoly"),
    group(Form::Alnum, 34, 34, "bscscan"),
    group(Form::Alnum, 35, 35, "craftmypdf"),
    group(Form::Alnum, 36, 36, "sslmate vultr zonka"),
    group(Form::Alnum, 39, 39, "apitemplate"),
    group(
        Form::Alnum,
        40,
        40,
        "beebole brandfetch buddyns buttercms calorieninja cicero circleci cohere deepgram diggernaut \
         enigma extractorapi geocodify jumpcloud lokalise oopspam pandadoc pipedrive qase shotstack \
         simplesat sonar sparkpost stockdata worksnaps zendesk",
    ),
    group(Form::Alnum, 43, 43, "bitcoinaverage hybiscus linenotify meistertask paralleldots"),
    group(Form::Alnum, 44, 44, "paymoapp"),
    group(Form::Alnum, 46, 46, "nuget"),
    group(Form::Alnum, 48, 48, "clockify foursquare restpack technicalanalysisapi"),
    group(Form::Alnum, 50, 50, "dronahq vyte"),
    group(Form::Alnum, 52, 52, "ado azure azuredevops dyspatch vsts"),
    group(Form::Alnum, 60, 60, "dareboost serphouse sportsmonk tly webscraper"),
    group(Form::Alnum, 62, 62, "planyo"),
    group(
        Form::Alnum,
        64,
        64,
        "artifactory bintray campayn codequiry confluent cryptocompare freshbooks groove html2pdf \
         iconfinder jfrog partnerstack peopledatalabs protocols qubole tmetric unplu unplugg webflow \
         wistia zipcodeapi",
    ),
    group(Form::Alnum, 76, 76, "jupiterone"),
    group(Form::Alnum, 80, 80, "fulcrum scrapingbee"),
    group(Form::Alnum, 128, 128, "chatfuel flat"),
    group(Form::Alnum, 220, 220, "envoy"),
    group(Form::Word, 16, 16, "raven"),
    group(Form::Word, 20, 20, "getemail hiveage nasdaq"),
    group(Form::Word, 20, 24, "mandrill"),
    group(Form::Word, 22, 22, "convertkit ethplorer proxycrawl travis"),
    group(Form::Word, 23, 47, "newrelic"),
    group(Form::Word, 25, 25, "baremetrics messagebird"),
    group(Form::Word, 25, 60, "ngrok"),
    group(Form::Word, 28, 28, "fastforex"),
    group(Form::Word, 29, 29, "userflow"),
    group(Form::Word, 30, 30, "cloudimage"),
    group(
        Form::Word,
        32,
        32,
        "adafruit alchemy audd autoklose everhour fastly ipifi pastebin paymongo rebrandly uplead",
    ),
    group(Form::Word, 34, 34, "pixabay uptimerobot"),
    group(Form::Word, 35, 35, "iexapis"),
    group(Form::Word, 36, 36, "besttime holidayapi insightly kontent mailgun mixmax moosend refiner urlscan"),
    group(Form::Word, 36, 37, "mailchimp"),
    group(Form::Word, 37, 37, "column coveralls klaviyo mailchimp"),
    group(Form::Word, 38, 42, "cloudflare"),
    group(Form::Word, 39, 39, "rocketreach"),
    group(Form::Word, 40, 40, "cloudflare gitter lob recaptcha"),
    group(Form::Word, 41, 41, "figma zenkit"),
    group(Form::Word, 42, 42, "okta"),
    group(Form::Word, 42, 44, "ibm ibmcloud"),
    group(Form::Word, 43, 43, "codemagic gyazo leadfeeder newscatcher unsplash"),
    group(Form::Word, 43, 45, "netlify"),
    group(Form::Word, 44, 46, "telegram"),
    group(Form::Word, 45, 45, "salesflare"),
    group(Form::Word, 46, 46, "lob"),
    group(Form::Word, 47, 47, "posthog"),
    group(Form::Word, 48, 48, "checio commercejs"),
    group(Form::Word, 50, 50, "overloop rapidapi"),
    group(Form::Word, 51, 51, "pandascore"),
    group(Form::Word, 57, 57, "less"),
    group(Form::Word, 58, 58, "telnyx"),
    group(Form::Word, 60, 70, "trello"),
    group(Form::Word, 60, 80, "kickbox"),
    group(Form::Word, 64, 64, "coinbase reachmail teletype"),
    group(Form::Word, 71, 71, "appoptics"),
    group(Form::Word, 72, 72, "mailgun"),
    group(Form::Word, 74, 74, "plaid"),
    group(Form::Word, 88, 88, "surveysparrow"),
    group(Form::Word, 111, 113, "budibase"),
    group(Form::Word, 128, 128, "dynalist"),
    group(Form::Token, 20, 20, "fxmarket"),
    group(Form::Token, 20, 400, "formbucket"),
    group(Form::Token, 21, 21, "databox"),
    group(Form::Token, 28, 28, "cloverly"),
    group(Form::Token, 32, 32, "discord newyorktimes nytimes"),
    group(Form::Token, 39, 39, "fileio"),
    group(Form::Token, 39, 96, "yandex"),
    group(Form::Token, 40, 40, "launchdarkly"),
    group(Form::Token, 43, 43, "hereapi"),
    group(Form::Token, 44, 44, "bitbucket instabot"),
    group(Form::Token, 44, 80, "paypal"),
    group(Form::Token, 48, 48, "currentsapi"),
    group(Form::Token, 49, 49, "closecrm"),
    group(Form::Token, 50, 50, "mailgun"),
    group(Form::Token, 52, 100, "asana"),
    group(Form::Token, 53, 58, "ecostruxureit"),
    group(Form::Token, 56, 200, "mapbox"),
    group(Form::Token, 59, 59, "twitter"),
    group(Form::Token, 60, 60, "workstack"),
    group(Form::Token, 64, 64, "capsulecrm hellosign square"),
    group(Form::Token, 68, 68, "getgist"),
    group(Form::Token, 72, 72, "imagga"),
    group(Form::Token, 77, 77, "ditto"),
    group(Form::Token, 79, 79, "teamwork teamworkdesk"),
    group(Form::Token, 80, 90, "kraken"),
    group(Form::Token, 87, 87, "segment"),
    group(Form::Token, 88, 88, "appointedd bombbomb"),
    group(Form::Token, 90, 90, "terraform"),
    group(Form::Token, 128, 128, "yelp"),
    group(Form::Token, 148, 152, "borgbase"),
    group(Form::Token, 148, 508, "monday"),
    group(Form::Token, 155, 155, "appfollow caflou"),
    group(Form::Token, 191, 191, "voicegain"),
    group(Form::Token, 196, 196, "moderation"),
    group(Form::Token, 243, 243, "livestorm"),
    group(Form::Token, 301, 301, "lexigram"),
    group(Form::Token, 301, 391, "formio"),
    group(Form::Token, 339, 389, "flightlabs"),
    group(Form::Token, 340, 360, "simplynoted"),
    group(Form::Token, 372, 372, "aiven"),
    group(Form::Token, 834, 1238, "cloudconvert"),
    group(Form::Token, 850, 1000, "paperform"),
    group(Form::Token, 864, 864, "lemonsqueezy"),
    group(Form::Token, 956, 956, "lendflow"),
    group(Form::Token, 985, 985, "tallyfy"),
    group(
        Form::Uuid,
        36,
        36,
        "anypoint blazemeter blocknative canny collect2 findl guardian heroku logz messagebird onesignal \
         opsgenie postmark runscope scaleway sendbird snyk squarespace zenscrape",
    ),
];
